"""Text and code that come from anywhere leave the page as it is."""

from __future__ import annotations

import pytest

from ddpm_pipeline.cards.markdown import fenced, plain


def test_plain_text_has_no_marks_left() -> None:
    assert plain("a_b*\n<c>") == "a\\_b\\* \\<c\\>"


@pytest.mark.parametrize("code", ["x = 1", "```", "a ````` b\n`c`"])
def test_a_fence_is_longer_than_any_in_the_code(code: str) -> None:
    first, *body, last = fenced(code, "python").splitlines()
    assert first == f"{last}python"
    assert "\n".join(body) == code
    assert set(last) == {"`"}
    assert last not in code
