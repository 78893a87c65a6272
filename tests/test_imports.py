"""The package's modules import only what the design allows, and its public names are lazy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ddpm_pipeline

PACKAGE = Path(ddpm_pipeline.__file__).parent
MATHS = (
    "gaussian",
    "schedule",
    "process",
    "spacing",
    "timesteps",
    "noise",
    "denoiser",
    "bound_terms",
    "losses",
)
TABLE = {
    "gaussian": set(),
    "schedule": set(),
    "process": {"gaussian", "schedule"},
    "spacing": {"schedule"},
    "timesteps": set(),
    "noise": set(),
    "denoiser": set(),
    "bound_terms": {"gaussian", "schedule", "process"},
    "losses": {"gaussian", "schedule", "process", "timesteps", "bound_terms"},
}
# A calibration takes several files; so does the scheduler, which holds one.
CALIBRATION = [
    "ddim",
    "calibration_costs",
    "calibration_moments",
    "calibration_smoothing",
    "calibration_estimate",
    "calibration_run",
    "calibration_weights",
    "calibration",
    "calibration_chains",
    "calibration_rates",
    "calibration_figures",
    "scheduler_chain",
    "scheduler_config",
    "calibration_report",
    "scheduler",
]
for name in CALIBRATION:
    TABLE[name] = set(TABLE) - {"losses", "timesteps"}
TABLE |= {
    "hub_requests": set(),
    "hub_loading": {"hub_requests"},
    "weight_files": set(),
    "compiling": set(),
    "cpu_training": set(),
    "optimizing": {"compiling", "cpu_training"},
    "pipeline": {
        "process",
        "ddim",
        "calibration",
        "scheduler",
        "optimizing",
        "hub_loading",
        "weight_files",
    },
    "bound_sampling": {"schedule", "noise"},
    "bound_totals": set(),
    "bound_report": {"bound_terms", "bound_totals"},
    "bound_data": set(),
}
# What one file does for the bound it may do with all that stands before it.
for name in ("bound_estimate", "bound", "bound_figures"):
    TABLE[name] = set(TABLE)
MODELS = set(TABLE)
# The jobs that take several files: each file may import what stands before it.
DATA = [
    "data_order",
    "image_sources",
    "image_decoding",
    "array_sources",
    "dataset_sources",
    "image_cache",
    "data",
    "loading",
    "streaming",
]
TRAINING = [
    "hub_names",
    "training_checks",
    "training_config",
    "optimization",
    "ema",
    "sharding",
    "unets",
    "training_setup",
    "training_data",
    "validation",
    "previews",
    "training_metrics",
    "training_record",
    "checkpointing",
    "run_folder",
    "stopping",
    "trainer",
    "dry_run",
]
EVALUATION = [
    "features",
    "metrics",
    "image_shards",
    "sampling",
    "image_statistics",
    "nearest",
    "evaluation_report",
    "evaluation",
]
COMMANDS = [
    "arguments",
    "train_command",
    "sample_command",
    "bound_command",
    "score_command",
    "calibrate_command",
    "evaluate_command",
    "push_command",
]
for i, name in enumerate(DATA):
    TABLE[name] = set(DATA[:i])
for i, name in enumerate(TRAINING):
    TABLE[name] = MODELS | set(DATA) | set(TRAINING[:i])
for i, name in enumerate(EVALUATION):
    TABLE[name] = MODELS | set(DATA) | set(EVALUATION[:i])
# To the Hub and back, and training, which pushes.
HUB = [
    "card_results",
    "card_index",
    "card_tables",
    "card_text",
    "card",
    "hub_files",
    "hub_target",
    "hub",
    "publishing",
    "hub_checkpoint",
    "training_push",
    "training",
]
for i, name in enumerate(HUB + COMMANDS):
    parts = set((HUB + COMMANDS)[:i])
    TABLE[name] = MODELS | set(DATA) | set(TRAINING) | set(EVALUATION) | parts
TABLE["cli"] = TABLE["__init__"] = set(TABLE)
NOT_IN_MATHS = {"diffusers", "accelerate", "transformers", "datasets", "huggingface_hub"}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))


class RunTime(ast.NodeTransformer):
    """Drops what only type checkers import."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse
        return self.generic_visit(node)


def imported(module: str) -> set[str]:
    """All dotted names that a module's import statements name when it runs, wherever they are."""
    names = set()
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    for node in ast.walk(RunTime().visit(tree)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = f"ddpm_pipeline.{node.module or ''}" if node.level else node.module
            names |= {f"{prefix.rstrip('.')}.{alias.name}" for alias in node.names}
    return names


def siblings(module: str) -> set[str]:
    """Modules of this package that a module imports."""
    parts = (name.split(".") for name in imported(module))
    return {name[1] for name in parts if name[0] == "ddpm_pipeline" and len(name) > 1} - {
        "__version__"
    }


def test_the_package_is_flat() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert folders == {PACKAGE}  # module paths are part of the saved-model format


def test_the_table_allows_no_arrow_up() -> None:
    order = list(TABLE)
    for module, allowed in TABLE.items():
        assert allowed <= set(order[: order.index(module)])


@pytest.mark.parametrize("module", MODULES)
def test_arrows_only_go_down_the_table(module: str) -> None:
    assert module in TABLE, f"{module}.py is not in the table of modules"
    assert siblings(module) <= TABLE[module]


@pytest.mark.parametrize("module", sorted(set(MODULES) & set(MATHS)))
def test_the_mathematics_knows_nothing_of_diffusers(module: str) -> None:
    assert not {name.split(".")[0] for name in imported(module)} & NOT_IN_MATHS


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, ddpm_pipeline; print('torch' in sys.modules, ddpm_pipeline.__version__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", ddpm_pipeline.__version__]


def test_every_public_name_has_a_module() -> None:
    assert sorted(ddpm_pipeline._MODULES) == sorted(ddpm_pipeline.__all__)


@pytest.mark.parametrize("name", ddpm_pipeline.__all__)
def test_public_names_come_from_their_modules(name: str) -> None:
    value = getattr(ddpm_pipeline, name)
    assert value.__module__.split(".")[0] == "ddpm_pipeline"
    assert value.__name__ == name
    assert name in dir(ddpm_pipeline)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'DDIMPipeline'"):
        _ = ddpm_pipeline.DDIMPipeline
