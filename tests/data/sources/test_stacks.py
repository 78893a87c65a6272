"""Files that are one image together, by a pattern of their names."""

from __future__ import annotations

import pytest

from ddpm_pipeline.data.sources.stacks import Stack, stacked

PATTERN = r"(?P<name>.*)_band(?P<band>\d+)"


def test_bands_come_in_the_order_of_their_numbers() -> None:
    files = [f"{scene}_band{band}.tif" for scene in ("b/y", "a/x") for band in (10, 9, 1)]
    assert stacked(files, PATTERN) == [
        Stack("a/x.tif", ("a/x_band1.tif", "a/x_band9.tif", "a/x_band10.tif")),
        Stack("b/y.tif", ("b/y_band1.tif", "b/y_band9.tif", "b/y_band10.tif")),
    ]


def test_bands_without_numbers_come_by_name_and_may_be_folders() -> None:
    files = ["red/1.png", "nir/1.png", "red/2.png", "nir/2.jpg"]
    found = stacked(files, r"(?P<band>\w+)/(?P<name>\w+)")
    assert found == [
        Stack("1.png", ("nir/1.png", "red/1.png")),
        Stack("2.jpg", ("nir/2.jpg", "red/2.png")),
    ]


@pytest.mark.parametrize(
    ("files", "pattern", "said"),
    [
        (["a_band1.tif"], "(", r"must be a regular expression .* got '\(': missing \)"),
        (["a_band1.tif"], "(?P<name>.*)", "with the groups name and band"),
        (["a_band1.tif", "b.tif"], PATTERN, r"does not match 1 of 2 images, as b\.tif"),
        (["a_band1.tif", "a_band1.png"], PATTERN, r"a_band1\.tif, a_band1\.png are both band '1'"),
        (
            ["a_band1.tif", "a_band2.tif", "b_band1.tif", "c_band3.tif"],
            PATTERN,
            "3 of 3 images lack bands of 1, 2, 3: a lacks 3; b lacks 2, 3; c lacks 1, 2",
        ),
    ],
)
def test_what_is_wrong_is_named(files: list[str], pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        stacked(files, pattern)
    assert "\n" not in str(caught.value)
