"""How large images are, in one form."""

from __future__ import annotations

import pytest

from ddpm_pipeline.common.sides import as_resolution, described_sides, sides_of


def test_a_square_is_one_number_however_it_is_written() -> None:
    for written in (64, (64, 64), [64, 64]):
        assert as_resolution(written) == 64
        assert sides_of(written) == (64, 64)
        assert described_sides(written) == "64×64"
    assert as_resolution([48, 80]) == (48, 80)
    assert described_sides((48, 80)) == "48×80"


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, "64", (1, 2, 3), (4,), (4, 0), (4, 2.0), None, True]
)
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="side must be an integer of at least 1, got"):
        as_resolution(value, "side")
