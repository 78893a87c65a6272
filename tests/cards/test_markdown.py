"""Text and code that come from anywhere leave the page as it is."""

from __future__ import annotations

import pytest

from ddpm_pipeline.cards.markdown import code, fenced, number, plain


def test_plain_text_has_no_marks_left() -> None:
    assert plain("a_b*\n<c>") == "a\\_b\\* \\<c\\>"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("http://evil.example", r"http\://evil.example"),
        ("www.evil.example", r"www\.evil.example"),
        ("mailto:a@b.example", r"mailto\:a\@b.example"),
        ("![x](y)", r"\!\[x\](y)"),
        ("a\n<!-- ddpm_pipeline:end -->\nb", r"a \<\!-- ddpm\_pipeline:end --\> b"),
        ("\x1b[2J\u202e", r"\\x1b\[2J\\u202e"),
        ("a\udcff", r"a\\xff"),
    ],
)
def test_text_makes_no_link_no_picture_and_no_mark_of_ours(text: str, written: str) -> None:
    assert plain(text) == written


def test_a_word_is_code_and_anything_else_is_text() -> None:
    assert code("v_prediction") == "`v_prediction`"
    assert code("X` [run](http://evil)") == r"X\` \[run\](http\://evil)"


def test_a_number_is_formatted_and_anything_else_is_text() -> None:
    assert (number(1234), number(0.5, ".2f")) == ("1,234", "0.50")
    assert number("<b>") == r"\<b\>"
    assert number(value=True) == "True"
    assert number(10**400, ".2f") == str(10**400)  # which no float holds


@pytest.mark.parametrize("block", ["x = 1", "```", "a ````` b\n`c`"])
def test_a_fence_is_longer_than_any_in_the_code(block: str) -> None:
    first, *body, last = fenced(block, "python").splitlines()
    assert first == f"{last}python"
    assert "\n".join(body) == block
    assert set(last) == {"`"}
    assert last not in block
