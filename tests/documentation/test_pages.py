"""The pages name what is there: links, files, names of the package, every folder and module."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from functools import cache
from operator import attrgetter
from pathlib import Path

import pytest
import yaml
from helpers.paths import DOCS, PACKAGE, ROOT
from package.test_imports import TABLE

import ddpm_pipeline

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(DOCS.glob("*.md")),
    *sorted(DOCS.glob("notebooks/*.md")),
]
THE_PATH = ["get_started", "train", "measure", "calibration", "edit", "hub", "api", "design"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def prose_of(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def rows_of(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    _, _, below = text_of(page).partition(heading)
    table = re.search(r"^\|.*?(?=\n[^|]|\Z)", below, flags=re.MULTILINE | re.DOTALL)[0]
    lines = [line.strip("|") for line in table.strip().splitlines()[2:]]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]


# Links and names.


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    lost = []
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", prose_of(page)):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    assert lost == [], f"{relative(page)} links to what is not there"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|md|toml|txt))[`:]", prose_of(page))
    lost = [n for n in named if not ((ROOT / n).is_file() or (PACKAGE / n).is_file())]
    assert lost == [], f"{relative(page)} names files that are neither here nor in ddpm_pipeline/"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_every_name_of_the_package_exists(page: Path) -> None:
    lost = [n for n in re.findall(r"`(ddpm_pipeline\.[\w.]+)`", prose_of(page)) if not found(n)]
    assert lost == [], f"{relative(page)} names what the package does not have"


def found(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        try:
            attrgetter(".".join(parts[length:]))(module) if parts[length:] else None
        except AttributeError:
            return False
        return True
    return False


def test_every_test_that_contributing_names_exists() -> None:
    known = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.parse(text_of(path)).body
        if isinstance(node, ast.FunctionDef)
    }
    named = re.findall(r"`(test_\w+)`", text_of(ROOT / "CONTRIBUTING.md"))
    assert len(named) > 3
    assert [name for name in named if name not in known] == []


# The path, and the folders.


def test_the_sidebar_and_the_index_follow_the_path() -> None:
    index = text_of(DOCS / "index.md")
    trees = re.findall(r"```\{toctree\}\n(.*?)```", index, flags=re.DOTALL)
    assert all(":glob:" not in tree and ":hidden:" in tree for tree in trees)
    entries = [
        re.sub(r".*<([\w/]+)>", r"\1", line)
        for tree in trees
        for line in tree.splitlines()
        if line and not line.startswith(":")
    ]
    assert entries[: len(THE_PATH)] == THE_PATH
    assert re.findall(r"^\d\. \[[^\]]+\]\((\w+)\.md\)", index, re.MULTILINE) == THE_PATH
    pages = [*DOCS.glob("*.md"), *DOCS.glob("notebooks/*.md")]
    names = [page.relative_to(DOCS).with_suffix("").as_posix() for page in pages]
    assert sorted(entries) == sorted(set(names) - {"index"})


def test_the_design_page_has_the_table_of_the_imports() -> None:
    rows = rows_of(DOCS / "design.md", "# Design")
    folders = [cells[0].strip("`") for cells in rows]
    assert folders == list(TABLE), "docs/design.md must list the folders as test_imports.py does"
    for (_, purpose, first, imports), folder in zip(rows, folders, strict=True):
        assert purpose
        assert (PACKAGE / folder / first.strip("`")).is_file(), f"{folder}: no file {first}"
        allowed = set() if imports == "–" else set(imports.split(", "))
        assert allowed == TABLE[folder], f"docs/design.md says otherwise of {folder}"


# The reference.


def modules() -> set[str]:
    """Every module of the package but the faces."""
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}


def offers_something(module: str) -> bool:
    tree = ast.parse(text_of(ROOT / Path(*module.split(".")).with_suffix(".py")))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return bool(ast.literal_eval(node.value))
    return False


def shown() -> list[str]:
    return re.findall(r"^\.\. automodule:: (\S+)$", text_of(DOCS / "api.md"), re.MULTILINE)


def internal() -> dict[str, str]:
    """Why each module, or ``folder.*``, is not on the page."""
    rows = rows_of(DOCS / "api.md", "## Internal modules")
    assert len({name for name, _ in rows}) == len(rows)
    return {name.strip("`"): reason for name, reason in rows}


def covers(entry: str, module: str) -> bool:
    return module == entry or (entry.endswith(".*") and module.startswith(entry[:-1]))


def test_the_reference_has_every_public_module_or_says_why_not() -> None:
    missing = [
        module
        for module in sorted(modules())
        if offers_something(module)
        and module not in shown()
        and not any(covers(entry, module) for entry in internal())
    ]
    assert missing == [], (
        "these modules have names in __all__; give each an automodule in docs/api.md below its "
        "folder, or a row with the reason in its table of internal modules"
    )


def test_the_reference_names_only_modules_that_exist() -> None:
    gone = [module for module in shown() if module not in modules()]
    assert gone == [], "docs/api.md has an automodule for modules that are not there any more"
    stale = [e for e in internal() if not any(covers(e, module) for module in modules())]
    assert stale == [], "docs/api.md calls modules internal that are not there any more"
    both = [entry for entry in internal() if entry in shown()]
    assert both == [], "docs/api.md shows these modules and calls them internal"
    assert [entry for entry, reason in internal().items() if not reason] == []


def test_the_reference_is_grouped_by_folder() -> None:
    page = text_of(DOCS / "api.md")
    folder, groups = "", []
    for line in page.splitlines():
        if line.startswith("## "):
            groups.append(folder := line.removeprefix("## "))
        elif line.startswith("### "):
            assert line.split(".")[1] == folder, f"{line} stands below {folder}"
            assert f".. automodule:: {line.removeprefix('### ')}\n" in page
    assert len(shown()) == len(set(shown())) == len(re.findall("^### ", page, re.MULTILINE))
    named = {entry.split(".")[1] for entry in internal() if entry.endswith(".*")}
    assert set(TABLE) <= {*groups, *named}
    for group in groups:
        below = page.partition(f"\n## {group}\n\n")[2]
        assert below[0].isupper(), f"{group} needs a sentence below its heading"


# How to cite.


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["message"]
    assert citation["authors"] == [{"name": "the ddpm_pipeline authors"}]
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]
    assert citation["title"] == project["name"]
    assert citation["license"] == project["license"]
    assert citation["version"] == ddpm_pipeline.__version__
    assert "(CITATION.cff)" in text_of(ROOT / "README.md")
