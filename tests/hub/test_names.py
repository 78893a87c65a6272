"""Names of the Hub in options."""

from __future__ import annotations

import pytest

from ddpm_pipeline.hub.names import HubCheckpoint, check_repo_id, parse_hub_checkpoint


@pytest.mark.parametrize(
    ("resume", "expected"),
    [
        ("latest", None),
        ("runs/hub", None),
        ("./hub", None),
        ("hub", HubCheckpoint("alice/own", None, is_own=True)),
        ("hub:bob/digits", HubCheckpoint("bob/digits", None, is_own=False)),
        ("hub:bob/digits@v1", HubCheckpoint("bob/digits", "v1", is_own=False)),
    ],
)
def test_a_checkpoint_on_the_hub_is_told_from_others(
    resume: str, expected: HubCheckpoint | None
) -> None:
    assert parse_hub_checkpoint(resume, "alice/own") == expected


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="resume_from_checkpoint='hub' needs hub_model_id"):
        parse_hub_checkpoint("hub", None)
    with pytest.raises(ValueError, match=r"in resume_from_checkpoint='hub:digits' must have the"):
        parse_hub_checkpoint("hub:digits", None)
    check_repo_id("alice/digits", "hub_model_id")
    for name in ("digits", "a/b/c", "alice/", "alice/di gits"):
        with pytest.raises(ValueError, match="hub_model_id must have the form USER/NAME"):
            check_repo_id(name, "hub_model_id")
