"""The bounds of pyproject.toml are the sets of versions that the tests run with."""

from __future__ import annotations

import re
import tomllib
from itertools import chain

import pytest
from helpers.paths import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def requirements(*extras: str) -> list[Requirement]:
    lists = (PROJECT["dependencies"], *(EXTRAS[name] for name in extras))
    found = [Requirement(line) for line in chain(*lists)]
    return [requirement for requirement in found if not requirement.extras]


def pinned(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def lower_bound(specifier: SpecifierSet) -> Version:
    (bound,) = [Version(part.version) for part in specifier if part.operator == ">="]
    return bound


@pytest.mark.parametrize("requirement", requirements("train", "eval", "demo", "dev"), ids=str)
def test_lower_bounds_are_the_oldest_set(requirement: Requirement) -> None:
    bound = lower_bound(requirement.specifier)
    tested = pinned("constraints-oldest.txt")[canonicalize_name(requirement.name)]
    tools = {"ruff", "pre-commit"}  # judge the code, which runs without them
    assert tested == bound or (requirement.name in tools and tested > bound)


@pytest.mark.parametrize("requirement", requirements(*EXTRAS), ids=str)
def test_the_usual_set_is_within_the_bounds(requirement: Requirement) -> None:
    usual = pinned("constraints.txt")[canonicalize_name(requirement.name)]
    assert usual in requirement.specifier
    oldest = pinned("constraints-oldest.txt").get(canonicalize_name(requirement.name), usual)
    assert oldest <= usual


def test_every_python_that_is_named_is_allowed() -> None:
    prefix = "Programming Language :: Python :: "
    named = [line.removeprefix(prefix) for line in PROJECT["classifiers"] if prefix in line]
    assert [python in SpecifierSet(PROJECT["requires-python"]) for python in named] == [True] * 3
    assert named[0] == lower_bound(SpecifierSet(PROJECT["requires-python"])).public
    stated = re.search(r"Python (\d\.\d+) to (\d\.\d+)", (ROOT / "README.md").read_text())
    assert stated.groups() == (named[0], named[-1])
