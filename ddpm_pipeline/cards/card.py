"""``renew_card``: the README.md of a model on the Hub, made of what lies in the model's folder.

    folder/  unet/, scheduler/, model_index.json       what the model is
             training_config.json, training_record.json how it was trained, and from what
             average.json                              which average its weights are
             evaluation.json, bound.json, calibration.json how good it is
             samples.png, or samples/step-0000500.png  how its samples look

Our section stands between two HTML comments and is written anew each time; the text before and
after them is left alone. In the metadata our results are renewed and missing keys are added.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import yaml
from huggingface_hub import ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import yaml_dump
from safetensors import SafetensorError

from ddpm_pipeline.cards.index import renew_index
from ddpm_pipeline.cards.markdown import plain
from ddpm_pipeline.cards.origin import base_metadata
from ddpm_pipeline.cards.results import TASK, ModelWeights, read_calibration, read_results
from ddpm_pipeline.cards.text import HEADINGS, CardFacts, section_parts

__all__ = ["card_picture", "renew_card"]


_DAMAGE = (LookupError, TypeError, AttributeError, RecursionError, SafetensorError)
_TAGS = ("diffusers", "ddpm_pipeline", "ddpm", TASK)
_BEGIN = re.compile(r"^<!-- ddpm_pipeline:begin weights=(\S*+).*-->[ \t]*$", re.MULTILINE)
_END = re.compile(r"^<!-- ddpm_pipeline:end -->[ \t]*$", re.MULTILINE)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
# Parts that stay for as long as the weights do, even if the folder no longer holds their sources.
_LASTING = ("Samples", "Fewer steps", "Training")


def renew_card(
    folder: str | Path,
    *,
    repo_id: str,
    existing: str | None = None,
    license: str | None = None,  # noqa: A002 (the Hub's word)
    data: str | None = None,
    tags: Sequence[str] = (),
) -> str:
    """Write a model's card, or bring it up to date; doing it twice changes nothing more.

    Results of other weights than the folder's are left out, with a warning, and ours are taken off
    the card. Parts that the folder holds no source for stay as long as the weights do.

    Arguments:
        folder: A saved pipeline, with what `train`, `ddpm evaluate`, `ddpm bound` and
            `ddpm calibrate` wrote into it. Nothing in it is changed.
        repo_id: Where the model is on the Hub, for the code on the card.
        existing: The present card; unless given, README.md in the folder, if there is one.
        license: The Hub's name of a licence, such as "apache-2.0"; unless given, the present one
            or that of the training config.
        data: What the training images are called; unless given, as the training config says.
        tags: More tags.
    Returns:
        The content of README.md. The picture on it is ``card_picture(folder)``.
    Raises:
        ValueError: If the folder holds no pipeline with a U-Net, one of its files says what no
            card can be made of, or the present card's metadata cannot be read.
    """
    folder = Path(folder)
    try:
        return _renewed(folder, repo_id, existing, license, data, tags)
    except _DAMAGE as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"no card can be made of the files in {str(folder)!r}, one of which is damaged: {said}"
        ) from error


def _renewed(
    folder: Path,
    repo_id: str,
    existing: str | None,
    license_name: str | None,
    data: str | None,
    tags: Sequence[str],
) -> str:
    existing = _read_text(folder / "README.md") if existing is None else existing
    existing = existing or ""
    is_crlf = 0 < existing.count("\r\n") == existing.count("\n")
    head, metadata, body = _split(existing.replace("\r\n", "\n") if is_crlf else existing)
    weights = ModelWeights(folder)
    name = PurePath(repo_id).name
    index = renew_index(
        metadata.get("model-index"), read_results(folder, weights), weights, model_name=name
    )
    facts = _gather_facts(folder, weights, repo_id=repo_id, results=index.ours, data=data)
    if license_name is None and "license" not in metadata:
        license_name = (facts.training or {}).get("hub_license")
    ours = ModelCardData(
        library_name="diffusers", pipeline_tag=TASK, license=license_name, tags=[*_TAGS, *tags]
    ).to_dict()
    ours |= base_metadata(facts.record)
    renewed = _renew_metadata(metadata, ours, index.entries, _hub_data(facts))
    if renewed != metadata:
        head = f"---\n{yaml_dump(renewed, sort_keys=False).strip()}\n---\n"
    title = "" if existing else f"\n# {plain(name)}\n"
    stays = ("Training",) if facts.lacks_command and data is None else ()
    body = _replace_section(title + body, section_parts(facts), weights.as_saved, stays)
    return (head + body).replace("\n", "\r\n") if is_crlf else head + body


def card_picture(folder: str | Path) -> str | None:
    """Find the picture that a card shows, which must be pushed with it: its path in the folder.

    It is samples.png, or else the newest sample grid of training, or None.
    """
    folder = Path(folder)
    grids = sorted((folder / "samples").glob("step-*.png"))
    single = folder / "samples.png"
    picture = single if single.is_file() else grids[-1] if grids else None
    return None if picture is None else picture.relative_to(folder).as_posix()


# What the folder holds.


def _read_text(path: Path) -> str | None:
    return path.read_bytes().decode("utf-8-sig") if path.is_file() else None


def _read_json(path: Path) -> dict[str, Any] | None:
    text = _read_text(path)
    try:
        values = None if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from None
    if not isinstance(values, dict | None):
        raise ValueError(f"{path.name} must hold an object")
    return values


def _gather_facts(folder: Path, weights: ModelWeights, **known: Any) -> CardFacts:  # noqa: ANN401
    index = _read_json(folder / "model_index.json")
    unet = _read_json(folder / "unet" / "config.json")
    if index is None or unet is None:
        raise ValueError(f"{str(folder)!r} holds no saved pipeline with a U-Net")
    return CardFacts(
        unet=unet,
        scheduler=_read_json(folder / "scheduler" / "scheduler_config.json") or {},
        num_parameters=weights.num_parameters,
        picture=card_picture(folder),
        training=_read_json(folder / "training_config.json"),
        record=_read_json(folder / "training_record.json"),
        average=_read_json(folder / "average.json"),
        calibration=read_calibration(folder, weights),
        diffusers_version=index.get("_diffusers_version", "unknown"),
        **known,
    )


def _hub_data(facts: CardFacts) -> list[str]:
    """Name the data sets of the Hub that the model was trained on."""
    name = (facts.training or {}).get("dataset_name")
    return [name] if name and "/" in name else []


# The metadata.


def _split(text: str) -> tuple[str, dict[str, Any], str]:
    """Split a card into the block of metadata with its dashes, the metadata, and the text."""
    found = REGEX_YAML_BLOCK.search(text)
    if found is None:
        return "", {}, text
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(found[2])):
            # A few nested ones stand for more text than any memory holds.
            raise ValueError("the metadata of the present README.md must hold no aliases (*NAME)")
        metadata = yaml.safe_load(found[2])
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ValueError(
            f"the metadata of the present README.md are not YAML: {problem}"
        ) from None
    if not isinstance(metadata, dict | None):
        raise ValueError("the metadata of the present README.md must be keys with values")
    return found[0], metadata or {}, text[found.end() :]


def _renew_metadata(
    metadata: dict[str, Any],
    ours: dict[str, Any],
    index: list[dict[str, Any]],
    datasets: list[str],
) -> dict[str, Any]:
    """Keep what a card's metadata say; set our licence, and add what they do not say yet."""
    renewed = ours | metadata
    renewed |= {key: ours[key] for key in ("license",) if key in ours}
    for key, more in (("tags", ours["tags"]), ("datasets", datasets)):
        present = metadata.get(key) or []
        present = [present] if isinstance(present, str) else present
        if missing := [value for value in more if value not in present]:
            renewed[key] = [*present, *dict.fromkeys(missing)]
    if index:
        renewed["model-index"] = index
    else:
        renewed.pop("model-index", None)
    return {key: renewed[key] for key in [*metadata, *renewed] if key in renewed}


# Our section.


def _replace_section(
    body: str, parts: dict[str, str], weights_hash: str, stays: Sequence[str]
) -> str:
    """Put our section into a card's text, in place of the present one or else at the end.

    Of the present section of the same weights, the lasting parts fill gaps in ours, and those that
    stay take the place of ours.
    """
    first = _BEGIN.search(body)
    stop = None if first is None else _END.search(body, first.end())
    if stop is None:
        gap = "\n" * (2 - min(2, len(body) - len(body.rstrip("\n"))))
        return f"{body}{gap}{_section(parts, weights_hash)}\n"
    *_, start = _BEGIN.finditer(body, first.start(), stop.start())
    if start[1] == weights_hash:
        older = _parts_of(body[start.end() : stop.start()])
        lasting = {name: older[name] for name in _LASTING if name in older}
        parts = lasting | parts | {name: lasting[name] for name in stays if name in lasting}
    return body[: start.start()] + _section(parts, weights_hash) + body[stop.end() :]


def _parts_of(section: str) -> dict[str, str]:
    """Split our section into its parts, by their headings."""
    first, *others = _HEADING.split(section)
    texts = {"": first} | dict(zip(others[::2], others[1::2], strict=True))
    return {heading: text.strip() for heading, text in texts.items()}


def _section(parts: dict[str, str], weights_hash: str) -> str:
    begin = (
        f"<!-- ddpm_pipeline:begin weights={weights_hash} Written anew at every push up to "
        "ddpm_pipeline:end; your own text is safe before and after. -->"
    )
    texts = [
        f"## {heading}\n\n{parts[heading]}" if heading else parts[heading]
        for heading in HEADINGS
        if heading in parts
    ]
    return "\n\n".join([begin, *texts, "<!-- ddpm_pipeline:end -->"])
