"""Mistakes on the command line in plain words: what tyro's errors, framed and long, come down to.

plain_mistake(Options, argv, printed)       --batch_size must be an integer, got 'many'
nearest("--batchsize", ["--batch_size"])    --batch_size
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import SequenceMatcher
from types import NoneType
from typing import Any, get_args, get_type_hints

__all__ = ["nearest", "option_names", "plain_mistake", "underscored"]


_SWITCHES = (bool, bool | None)
_KINDS = {int: "an integer", float: "a number", tuple[int, int]: "two integers"}
# How much of two names is the same, 1 being all: a slip of the finger, and what may be one.
_NEARLY_SAME, _ALIKE = 0.85, 0.75


def underscored(word: str) -> str:
    """Write an option's name with underscores, between which and hyphens nothing is told."""
    return word.replace("-", "_").replace("__", "--", 1) if word.startswith("--") else word


def option_names(arguments: type) -> Iterator[str]:
    """Yield the names of a dataclass's options, and of those in the dataclasses in it."""
    return (name for name, _ in _options(arguments))


def plain_mistake(arguments: type, argv: Sequence[str], printed: str) -> str:
    """Say in a few words what is wrong with arguments that tyro refused.

    Arguments:
        arguments: The dataclass that they were to make.
        argv: The arguments.
        printed: What tyro said, in its frame.
    """
    if unknown := _unknown_options(arguments, argv):
        return f"Unrecognized options: {unknown}"
    text = _unframed(printed)
    for pattern, words in _REWORDED:
        if found := re.match(pattern, text):
            return words(found, dict(_options(arguments)))
    # A dataclass that refuses a value says all there is to say.
    return re.sub(r"^Error parsing (?!--)[^:]*: ", "", text)


def nearest(typed: str, known: Sequence[str]) -> str | None:
    """Give the option that was most likely meant, or None if none is likely.

    One that is spelled nearly the same; else the first that has the words that were typed, or
    whose words have these initials, as --lr; else the shortest whose words they begin; else one
    that is spelled alike.

    Arguments:
        typed: What was typed, with hyphens before it.
        known: All options, the more common ones first.
    """
    name, names = typed.removeprefix("--"), [option.removeprefix("--") for option in known]
    alike = {n: SequenceMatcher(None, name, n, autojunk=False).ratio() for n in names}
    likeliest = max(names, key=alike.__getitem__)
    if alike[likeliest] >= _NEARLY_SAME:
        return f"--{likeliest}"
    for option in names:
        if _has_words(name.split("_"), option.split("_")):
            return f"--{option}"
    begun = [option for option in names if _has_beginnings(name.split("_"), option.split("_"))]
    if begun:
        return f"--{min(begun, key=len)}"
    return f"--{likeliest}" if alike[likeliest] >= _ALIKE else None


def _has_words(typed: Sequence[str], words: Sequence[str]) -> bool:
    """Tell whether a name has the words that were typed, maybe run together, or these initials."""
    ends = {"".join(words[i:]) for i in range(len(words))}
    initials = "".join(word[:1] for word in words)
    return set(typed) <= set(words) or "".join(typed) in ends | {initials}


def _has_beginnings(typed: Sequence[str], words: Sequence[str]) -> bool:
    """Tell whether what was typed begins words of a name, in their order."""
    left = iter(words)
    return all(len(part) > 1 and any(word.startswith(part) for word in left) for part in typed)


def _options(arguments: type) -> Iterator[tuple[str, Any]]:
    """Yield the names and types of a dataclass's options, nested ones too."""
    hints = get_type_hints(arguments)
    for field in fields(arguments):
        if is_dataclass(hints[field.name]):
            yield from _options(hints[field.name])
        else:
            yield field.name, hints[field.name]


def _unknown_options(arguments: type, argv: Sequence[str]) -> str:
    """Name the options that there are not, each with the nearest that there is."""
    known = []
    for name, hint in _options(arguments):
        known += [f"--{name}", f"--no_{name}"] if hint in _SWITCHES else [f"--{name}"]
    known.append("--help")
    unknown = []
    for argument in argv:
        option = argument.partition("=")[0]
        if option.startswith("--") and underscored(option) not in known:
            near = nearest(underscored(option), known)
            unknown.append(option + (f" (did you mean {near}?)" if near else ""))
    return ", ".join(unknown)


def _unframed(box: str) -> str:
    """Take what a tyro error says out of the frame and the help around it."""
    words = []
    for line in box.splitlines()[1:]:
        text = line.strip("│╰╯ ")
        if text.startswith(("Argument helptext", "For full helptext")):
            break
        if not set(text) <= set("─-"):
            words.append(text)
    return " ".join(words).rstrip(".")


def _missing(found: re.Match[str], _: dict[str, Any]) -> str:
    """Name the options that must be given."""
    names = dict.fromkeys(re.findall(r"(--\w+) ", found["rest"]))
    return f"missing: {', '.join(names)}"


def _without_value(found: re.Match[str], _: dict[str, Any]) -> str:
    return f"{found['option']} needs a value"


def _no_choice(found: re.Match[str], _: dict[str, Any]) -> str:
    allowed = found["allowed"].replace("'", "").rstrip(",")
    return f"{found['option']} must be one of {allowed}, got {found['value']}"


def _no_value(found: re.Match[str], options: dict[str, Any]) -> str:
    """Say what a value must be, by the option's type; as tyro says it for types with no words."""
    option, said = found["option"], found["said"]
    hint = options.get(option.removeprefix("--"))
    kinds = [_KINDS[kind] for kind in get_args(hint) or (hint,) if kind in _KINDS]
    values = re.search(r"('[^']*')$|from (\[.*?\])", said)
    if not kinds or values is None:
        return f"{option}: {said}"
    others = [repr(v) for kind in get_args(hint) for v in get_args(kind) if isinstance(v, str)]
    if NoneType in get_args(hint):
        others.append("None")
    got = values[1] or values[2].strip("[]")
    return f"{option} must be {' or '.join([*kinds, *others])}, got {got}"


_REWORDED = (
    (r"Missing from [^:]*: (?P<rest>.*)", _missing),
    (r"Missing value for argument '(?P<option>--\w+)'", _without_value),
    (
        r"invalid choice (?P<value>.*) for argument '(?P<option>--\w+)'[^(]*\((?P<allowed>.*)\)",
        _no_choice,
    ),
    (r"Error parsing (?P<option>--\w+)[^:]*: (?P<said>.*)", _no_value),
)
"""How tyro's errors begin, and what makes a plain sentence of each."""
