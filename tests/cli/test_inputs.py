"""What a command is given to work on: here, on the Hub, or nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm_pipeline.cli.inputs import (
    HubName,
    ask_hub,
    not_here,
    require_features,
    require_split,
)
from ddpm_pipeline.hub import HubError, NotOnHubError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model_index.json").write_text("{}")


def test_what_is_here_is_not_asked_for(here: None) -> None:
    assert not_here(model="model", data="photos", bound_data=None) == []


def test_names_of_the_hub_are_listed_in_order(here: None) -> None:
    assert not_here(model="alice/digits", data="mnist", bound_data="photos") == [
        HubName("model", "alice/digits"),
        HubName("data", "mnist"),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "digits"}, "there is no folder 'digits', and models on the Hub are called"),
        ({"model": "photos"}, "no model_index.json"),
        ({"model": "model", "data": "no.npz"}, "data='no.npz' does not exist"),
        ({"bound_data": "no/such/folder"}, "bound_data='no/such/folder' does not exist"),
    ],
)
def test_what_can_be_nowhere_is_refused(here: None, given: dict[str, str], said: str) -> None:
    with pytest.raises(FileNotFoundError, match=said):
        not_here(**given)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NotOnHubError("cannot load"), "data='no' is neither a path here nor a data set on the"),
        (HubError("offline"), "data='no' is no path here, and the Hub could not be asked for a"),
    ],
)
def test_only_the_hub_itself_says_that_it_has_none(
    monkeypatch: pytest.MonkeyPatch, error: HubError, said: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("ddpm_pipeline.hub.check_on_hub", fail)
    with pytest.raises(FileNotFoundError, match=said):
        ask_hub([HubName("data", "no")])
    with pytest.raises(HubError, match=str(error)):
        ask_hub([HubName("model", "a/no")])


def test_missing_features_are_refused_without_the_network(here: None) -> None:
    for name in ("no.py", "no", "runs/of/mine"):
        with pytest.raises(FileNotFoundError, match=rf"features='{name}' does not exist"):
            require_features(name)
    for name in (None, "inception", "photos", "facebook/dinov2-small"):
        require_features(name)


def test_images_that_their_names_tell_to_be_missing_are_refused(here: None) -> None:
    for source, split in ((None, None), ("alice/photos", "no"), ("photos", "validation")):
        require_split(source, split)
    with pytest.raises(ValueError, match="split='no': 'photos' has no such folder"):
        require_split("photos", "no")
    with pytest.raises(FileNotFoundError, match=r"x-\*\.tar' matches no shards"):
        require_split("x-*.tar", None)
