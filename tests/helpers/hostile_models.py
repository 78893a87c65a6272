"""Model folders that carry code, in every place where some library would run it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

LIBRARY = "library_with_code"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


class Carrier:
    """A folder with a model, and a file that appears when code of the model runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mark = folder, folder.parent / "CODE_RAN"
        self.code = f"from pathlib import Path\nPath({str(self.mark)!r}).write_text('x')\n"

    def __reduce__(self) -> tuple[Callable, tuple]:
        return exec, (self.code,)

    def edit(self, file: str, **changes: object) -> None:
        path = self.folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def script(self, file: str) -> None:
        """Put a module there with classes of all names that are asked for."""
        names = ("Evil", "UNet2DModel", "DDPMScheduler")
        classes = "".join(f"class {name}:\n    pass\n" for name in names)
        (self.folder / file).write_text(self.code + classes)

    def pickled(self, file: str) -> None:
        (self.folder / file).write_bytes(pickle.dumps(self))


def pipeline_file(model: Carrier) -> None:
    model.script("pipeline.py")
    model.edit("model_index.json", _class_name=["pipeline", "Evil"])


def pipeline_file_as_custom_pipeline(model: Carrier) -> dict[str, object]:
    model.script("pipeline.py")
    return {"custom_pipeline": str(model.folder)}


def pipeline_file_that_is_trusted(model: Carrier) -> dict[str, object]:
    pipeline_file(model)
    return {"trust_remote_code": True}


def module_of_a_component(model: Carrier) -> None:
    model.script("unet/unet.py")
    model.edit("model_index.json", unet=["unet", "Evil"])


def library_of_a_component(model: Carrier) -> None:
    model.edit("model_index.json", unet=[LIBRARY, "UNet2DModel"])


def library_of_the_scheduler(model: Carrier) -> None:
    model.edit("model_index.json", scheduler=[LIBRARY, "DDPMScheduler"])


def library_of_another_part(model: Carrier) -> None:
    (model.folder / "vae").mkdir()
    model.edit("model_index.json", vae=[LIBRARY, "Evil"])


def class_of_the_pipeline(model: Carrier) -> None:
    model.edit("model_index.json", _class_name=f"{LIBRARY}.Evil")


def function_of_the_system(model: Carrier) -> None:
    model.edit("model_index.json", unet=["os", "system"])


def classes_in_configs(model: Carrier) -> None:
    model.script("unet/evil.py")
    model.edit("unet/config.json", _class_name=f"{LIBRARY}.Evil", _module="evil")
    model.edit("scheduler/scheduler_config.json", _class_name=f"{LIBRARY}.Evil")


def auto_map(model: Carrier) -> None:
    model.script("unet/evil.py")
    model.edit("unet/config.json", auto_map={"AutoModel": "evil.Evil"}, model_type="evil")


def code_for_a_version(model: Carrier) -> None:
    model.edit("model_index.json", _diffusers_version=f"0.1; import {LIBRARY}", _module="evil")


def pickle_in_place_of_safetensors(model: Carrier) -> None:
    model.pickled(WEIGHTS)


def pickled_weights(model: Carrier) -> None:
    (model.folder / WEIGHTS).unlink()
    model.pickled("unet/diffusion_pytorch_model.bin")


def pickled_weights_that_are_asked_for(model: Carrier) -> dict[str, object]:
    pickled_weights(model)
    return {"use_safetensors": False}


def _index(model: Carrier, shard: str) -> None:
    names = load_file(model.folder / WEIGHTS)
    (model.folder / WEIGHTS).unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, shard)}
    (model.folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def index_of_a_pickle(model: Carrier) -> None:
    model.pickled("unet/x.bin")
    _index(model, "x.bin")


def index_of_weights_as_a_pickle(model: Carrier) -> None:
    torch.save(load_file(model.folder / WEIGHTS), model.folder / "unet/x.bin")
    _index(model, "x.bin")


def index_that_leads_out(model: Carrier) -> None:
    model.pickled("../x.safetensors")
    _index(model, "../../x.safetensors")


CODE_CARRIERS = (
    pipeline_file,
    pipeline_file_as_custom_pipeline,
    pipeline_file_that_is_trusted,
    module_of_a_component,
    library_of_a_component,
    library_of_the_scheduler,
    library_of_another_part,
    class_of_the_pipeline,
    function_of_the_system,
    classes_in_configs,
    auto_map,
    code_for_a_version,
    pickle_in_place_of_safetensors,
    pickled_weights,
    pickled_weights_that_are_asked_for,
    index_of_a_pickle,
    index_of_weights_as_a_pickle,
    index_that_leads_out,
)
"""Each prepares a carrier, and gives options that a caller may be talked into."""

LOADS_ANYWAY = (class_of_the_pipeline, classes_in_configs, auto_map, code_for_a_version)
"""In which nothing is wrong but names that we have no use for."""
