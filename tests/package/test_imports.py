"""Folders import only what the table allows, by each other's faces, and public names are lazy."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.paths import PACKAGE

import ddpm_pipeline

MODELS = {"common", "networks", "diffusion", "data", "schedulers", "pipelines"}
# Every folder, lowest first, and the folders that it may import.
TABLE: dict[str, set[str]] = {
    "common": set(),
    "networks": {"common"},
    "diffusion": {"common"},
    "data": {"common", "networks"},
    "schedulers": {"common", "diffusion"},
    "cards": {"common", "schedulers"},
    "hub": {"common", "cards"},
    "pipelines": {"common", "networks", "diffusion", "data", "schedulers", "hub"},
    "likelihood": MODELS,
    "evaluation": {"common", "data", "schedulers", "pipelines", "likelihood"},
    "training": MODELS | {"cards", "hub", "likelihood", "evaluation"},
    "calibration": MODELS | {"evaluation"},
    "app": {"common", "networks", "data", "schedulers", "cards", "pipelines", "training"},
    "cli": MODELS | {"cards", "hub", "likelihood", "evaluation", "training", "calibration", "app"},
}
NOT_IN_MATHS = {"diffusers", "accelerate", "transformers", "datasets", "huggingface_hub", "PIL"}
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in FILES} - {PACKAGE})


class Arrow(NamedTuple):
    """One import of our own: the file, the module that it names, and the name taken from it."""

    file: Path
    module: str
    name: str
    at_run_time: bool


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def only_for_types(tree: ast.Module) -> set[ast.AST]:
    """Nodes that only type checkers look at."""
    blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and _is_type_checking(n.test)]
    return {node for block in blocks for part in block.body for node in ast.walk(part)}


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def imports(path: Path) -> Iterator[tuple[str, str, bool]]:
    """(module, name, whether at run time) of every import statement, wherever it stands."""
    tree = tree_of(path)
    for_types = only_for_types(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", node not in for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from ((node.module, a.name, node not in for_types) for a in node.names)


def arrows(path: Path) -> list[Arrow]:
    """A file's imports of this package."""
    found = [Arrow(path, *item) for item in imports(path)]
    return [arrow for arrow in found if arrow.module.split(".")[0] == "ddpm_pipeline"]


def folder_of(path: Path) -> str:
    """The folder of the table that a file lies in; "" for the package's own face."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_the_table_has_every_folder_and_no_arrow_up() -> None:
    assert {folder_of(path) for path in FILES} == {*TABLE, ""}
    order = list(TABLE)
    for folder, allowed in TABLE.items():
        assert allowed <= set(order[: order.index(folder)])


def test_nothing_but_the_face_lies_beside_the_folders() -> None:
    assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]


def test_no_folder_has_a_name_that_diffusers_takes_for_its_own() -> None:
    from diffusers import pipelines

    taken = [f.name for f in FOLDERS if hasattr(pipelines, f.name)]
    assert taken == []  # it would write such a name into saved models, as a library
    assert not {"ddpm", "ddim"} & {folder.name for folder in FOLDERS}


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_arrows_only_go_down_the_table_and_end_at_a_face(path: Path) -> None:
    own = folder_of(path)
    for arrow in arrows(path):
        _, *parts = arrow.module.split(".")
        if not parts and arrow.name in TABLE:  # `from ddpm_pipeline import diffusion`
            parts = [arrow.name]
        if parts and parts[0] == own:
            at_face = len(parts) == 1 and path.name != "__init__.py"
            assert not at_face, f"{dotted(path)} imports the face of its own folder"
            continue
        allowed = set(TABLE) if own == "" else TABLE[own]
        assert parts, f"{dotted(path)} imports the package's own face"
        assert parts[0] in allowed, f"{dotted(path)} must not import {arrow.module}"
        lazy = parts in (["common", "faces"], ["common", "version"])
        if path.name == "__init__.py" and lazy:
            continue
        assert len(parts) == 1, f"{dotted(path)} reaches past the face of {parts[0]}"
        face = importlib.import_module(f"ddpm_pipeline.{parts[0]}")
        assert arrow.name in face.__all__, f"{arrow.name} is not in the face of {parts[0]}"


@pytest.mark.parametrize("folder", TABLE)
def test_there_are_no_circles_in_a_folder(folder: str) -> None:
    files = [path for path in FILES if folder_of(path) == folder and path.name != "__init__.py"]
    names = {dotted(path) for path in files}
    left = {}
    for path in files:
        own = [arrow for arrow in arrows(path) if arrow.at_run_time]
        left[dotted(path)] = {a.module for a in own} | {f"{a.module}.{a.name}" for a in own}
        left[dotted(path)] &= names
    while free := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert left == {}


LOADERS = {"import_module", "__import__", "import_string", "resolve_name", "exec", "eval"}


@pytest.mark.parametrize("path", FILES, ids=dotted)
def test_no_module_of_ours_is_imported_by_a_string(path: Path) -> None:
    """An arrow that is hidden in a string would be seen by none of these tests."""
    if dotted(path) == "ddpm_pipeline.common.faces":
        return
    assert hidden_arrows(path.read_text(encoding="utf-8")) == []


def hidden_arrows(source: str) -> list[str]:
    """What could import a module of ours without an import statement, by line."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    harmless = {id(node.func) for node in ast.walk(tree) if _loads_another(node)}
    nodes = [node for node in ast.walk(tree) if id(node) not in docstrings | harmless]
    reasons = ((node, _hides(node)) for node in nodes)
    return [f"line {node.lineno}: {reason}" for node, reason in reasons if reason]


def _hides(node: ast.AST) -> str:
    """The name of what a node could import by, or nothing."""
    match node:
        case ast.Constant(value=str(text)) if re.match(r"ddpm_pipeline\.\w", text):
            return repr(text)
        case ast.Name(id=name) if name in LOADERS:
            return name
        case ast.Attribute(attr=name) if name in LOADERS - {"eval", "exec"}:
            return name
        case ast.Attribute(value=ast.Name(id="sys"), attr="modules"):
            return "sys.modules"
        case ast.ImportFrom(names=names):
            return ", ".join(a.name for a in names if a.name in LOADERS and a.asname is not None)
    return ""


def _loads_another(node: ast.AST) -> bool:
    """Whether a node imports one module, named in full, which is not ours."""
    if not isinstance(node, ast.Call) or _called(node) != "import_module" or node.keywords:
        return False
    match node.args:
        case [ast.Constant(value=str(name))]:
            return not name.startswith((".", "ddpm_pipeline"))
    return False


def _called(node: ast.Call) -> str:
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


@pytest.mark.parametrize(
    "code",
    [
        'import_module("ddpm_pipeline.training")',
        'import_module(".training", "ddpm_pipeline")',
        'import_module(name=f"ddpm_{package}.training")',
        'from importlib import import_module as load\nload("x")',
        "load = importlib.import_module",
        '__import__("ddpm_pipeline").training',
        'sys.modules["ddpm_" + "pipeline.training"]',
        'pkgutil.resolve_name("ddpm_" "pipeline.training:train")',
        'exec("import ddpm_" + "pipeline.training")',
    ],
)
def test_arrows_cannot_hide(code: str) -> None:
    assert hidden_arrows(code) != []


@pytest.mark.parametrize(
    "code",
    [
        'import_module("datasets")',
        '"""See ddpm_pipeline.training."""',
        'logging.getLogger("ddpm_pipeline")',
        "network.eval()",
    ],
)
def test_what_hides_nothing_is_allowed(code: str) -> None:
    assert hidden_arrows(code) == []


def test_the_mathematics_brings_in_torch_and_no_library_of_diffusion() -> None:
    files = sorted((PACKAGE / "diffusion").glob("*.py"))
    code = "import sys\n" + "".join(f"import {dotted(path)}\n" for path in files)
    code += f"print(sorted({NOT_IN_MATHS} & {{name.split('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted((PACKAGE / "diffusion").glob("*.py")), ids=dotted)
def test_the_mathematics_knows_nothing_of_diffusers(path: Path) -> None:
    assert not {module.split(".")[0] for module, _, _ in imports(path)} & NOT_IN_MATHS


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, ddpm_pipeline; print('torch' in sys.modules, ddpm_pipeline.__version__)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", ddpm_pipeline.__version__]


@pytest.mark.parametrize("folder", ["", *TABLE])
def test_a_face_says_the_same_to_type_checkers_and_to_python(folder: str) -> None:
    path = PACKAGE / folder / "__init__.py"
    package = importlib.import_module(dotted(path))
    claimed = {arrow.name: arrow.module for arrow in arrows(path) if not arrow.at_run_time}
    assert sorted(claimed) == sorted(package.__all__)
    modules = {child.stem for child in path.parent.iterdir()}
    assert not modules & set(claimed), "a module of that name would take the place of the name"
    for name, module in claimed.items():
        assert getattr(package, name) is getattr(importlib.import_module(module), name)
        assert name in dir(package)


@pytest.mark.parametrize("name", ddpm_pipeline.__all__)
def test_public_names_are_our_own(name: str) -> None:
    value = getattr(ddpm_pipeline, name)
    assert value.__module__.split(".")[0] == "ddpm_pipeline"
    assert value.__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'DDIMPipeline'"):
        _ = ddpm_pipeline.DDIMPipeline
