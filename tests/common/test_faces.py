"""A face imports a module when a name of it is used, and no sooner."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

FACE = """
from ddpm_pipeline.common.faces import lazy_face

OWN = 1
__getattr__, __dir__, __all__ = lazy_face(
    __name__, {"second": "two three", "deep.first": "one"}
)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    folder = tmp_path / "small_package"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text(FACE)
    (folder / "second.py").write_text("two, three, hidden = [2], 3, 4")
    (folder / "deep" / "__init__.py").write_text("")
    (folder / "deep" / "first.py").write_text("one = 1")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("small_package")
    for name in [name for name in sys.modules if name.split(".")[0] == "small_package"]:
        del sys.modules[name]


def test_modules_are_imported_when_their_names_are_used(package: ModuleType) -> None:
    assert "small_package.second" not in sys.modules
    assert package.three == 3
    assert "small_package.second" in sys.modules
    assert "small_package.deep.first" not in sys.modules
    assert package.one == 1


def test_a_name_is_the_same_object_each_time(package: ModuleType) -> None:
    assert package.two is package.two
    assert package.two is importlib.import_module("small_package.second").two
    assert "two" in vars(package)  # found without asking again


def test_names_are_listed_before_they_are_imported(package: ModuleType) -> None:
    assert package.__all__ == ["one", "three", "two"]
    assert {"one", "two", "three", "OWN"} <= set(dir(package))
    assert "small_package.second" not in sys.modules


def test_star_imports_get_all_names(package: ModuleType) -> None:
    names: dict[str, object] = {}
    exec("from small_package import *", names)
    assert (names["one"], names["two"], names["three"]) == (1, [2], 3)
    assert "hidden" not in names
    assert "OWN" not in names


def test_other_names_are_attribute_errors(package: ModuleType) -> None:
    for name in ("hidden", "four"):
        with pytest.raises(AttributeError, match=f"'small_package' has no attribute '{name}'"):
            getattr(package, name)
    with pytest.raises(ImportError, match="cannot import name 'four'"):
        exec("from small_package import four", {})
