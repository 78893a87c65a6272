"""Labels of image folders from metadata.csv, .jsonl or .parquet, as `datasets` knows them.

    file_name,label
    a/0.png,cat

A file speaks for the images below the folder that it is in, by names that begin there.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ddpm_pipeline.data.findings import printable
from ddpm_pipeline.data.sources.library import import_datasets
from ddpm_pipeline.data.sources.regular_files import check_regular, read_regular
from ddpm_pipeline.data.sources.source import LABEL_NAMES, one_line

__all__ = ["metadata_labels"]

_FILE_NAME = "file_name"
_NAMED = 3
_BLANKS = {"nan", "na", "n/a", "<na>", "null", "none"}  # what is written for no value

Row = dict[str, Any]


def metadata_labels(
    root: Path,
    files: Sequence[str],
    names: Sequence[str],
    column: str | None,
    *,
    option: str = "label_column",
    what: str = "labels",
) -> tuple[list[Any], str] | None:
    """Read the label of each image from the metadata of a folder.

    Arguments:
        root: The folder.
        files: The metadata files below it, by their names there.
        names: The images below it.
        column: The column of labels; the one that is called like labels unless given.
        option, what: What names the column, and what it holds, for messages.
    Returns:
        One label per image, an integer or a string, and where they came from; None if there is no
        such column and none was named.
    Raises:
        ValueError: If the metadata cannot be read, or say nothing of an image, or name one that is
            not there; if the column is in none of them, or it is not clear which one it is.
    """
    found: dict[str, Any] = {}
    used: list[str] = []
    columns: set[str] = set()
    own_names = {_composed(name): name for name in names} | {name: name for name in names}
    for file in files:
        rows = _read(root / file)
        columns |= set().union(*rows)
        if (chosen := _find_column(rows, column, file)) is None:
            continue
        used.append(f"{file}, column {chosen!r}")
        _take(found, rows, chosen, file, own_names, what)
    if not used:
        if column is not None:
            known, where = sorted(columns - {_FILE_NAME}), printable(", ".join(files))
            raise ValueError(f"{option}={column!r} must be one of {known} in {where}")
        return None
    _check_complete(found, names, used, what)
    return _typed([found[name] for name in names]), "; ".join(used)


def _take(
    found: dict[str, Any],
    rows: Iterable[Row],
    column: str,
    file: str,
    own_names: dict[str, str],
    what: str,
) -> None:
    """Add the labels of a file to those found, by the images' own names.

    Raises:
        ValueError: If an image has another label already, or a cell stands for no label.
    """
    folder = posixpath.dirname(file)
    for number, row in enumerate(rows, 1):
        if _is_missing(label := row.get(column), file):
            are_labels = what == "labels"
            is_name = are_labels and isinstance(label, str)
            hint = "; classes called so need metadata.jsonl" if is_name else ""
            missing = "label" if are_labels else "value"
            raise ValueError(
                f"{printable(file)} has no {missing} in row {number}, "
                f"{printable(row[_FILE_NAME])}: its {column!r} is {label!r}{hint}"
            )
        path = posixpath.normpath(posixpath.join(folder, row[_FILE_NAME]))
        name = own_names.get(path) or own_names.get(_composed(path), path)
        if found.setdefault(name, row.get(column)) != row.get(column):
            raise ValueError(
                f"{printable(file)} has two {what} of {printable(name)}: {found[name]!r} and "
                f"{row.get(column)!r}"
            )


def _is_missing(label: object, file: str) -> bool:
    """Tell a value that stands for no label, which text of a CSV file cannot say otherwise."""
    if isinstance(label, str):
        return file.endswith(".csv") and label.strip().lower() in _BLANKS
    return label != label  # noqa: PLR0124 (NaN)


def _check_complete(
    found: dict[str, Any], names: Sequence[str], used: Iterable[str], what: str
) -> None:
    """Refuse metadata that leave out an image, or name one that is not there."""
    where = printable("; ".join(used))
    if missing := [name for name in names if found.get(name) is None or found[name] == ""]:
        raise ValueError(
            f"{what} missing for {len(missing)} of {len(names)} images, as {_first(missing)}: "
            f"not in {where}"
        )
    if absent := sorted(set(found) - set(names)):
        raise ValueError(
            f"{where} has {what} of {len(absent)} images that are not there, as {_first(absent)}"
        )


def _composed(name: str) -> str:
    """Give a name as every system writes it: an archive may hold letters in parts."""
    return unicodedata.normalize("NFC", name)


def _first(names: Sequence[str]) -> str:
    return ", ".join(printable(n) for n in names[:_NAMED]) + (", ..." if names[_NAMED:] else "")


def _read(path: Path) -> list[Row]:
    """Read the rows of a metadata file, each with the name of its image."""
    shown = printable(path.name)
    try:
        rows = _READERS[path.suffix](path)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # many types, RecursionError of nested JSON among them
        raise ValueError(f"{shown} cannot be read: {one_line(error)}") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not isinstance(row.get(_FILE_NAME), str):
            there = (
                ", ".join(map(repr, list(row)[:5])) if isinstance(row, dict) else f"{row!r:.100}"
            )
            raise ValueError(f"{shown} has no {_FILE_NAME!r} in row {number}, which has {there}")
        if None in row:  # where csv puts what has no column
            raise ValueError(f"{shown} has more cells in row {number} than columns")
    return rows


def _read_text(path: Path) -> str:
    text = read_regular(path).decode("utf-8-sig", errors="surrogateescape")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_csv(path: Path) -> list[Row]:
    text = io.StringIO(_read_text(path), newline="")
    rows = csv.DictReader(text, skipinitialspace=True)
    _check_once(rows.fieldnames or ())
    return list(rows)


def _read_json_lines(path: Path) -> list[Row]:
    # At line feeds alone: a string may hold other characters that end lines.
    lines = [line for line in _read_text(path).split("\n") if line.strip()]
    return [json.loads(line, object_pairs_hook=_row_of) for line in lines]


def _row_of(pairs: list[tuple[str, Any]]) -> Row:
    _check_once([name for name, _ in pairs])
    return dict(pairs)


def _check_once(columns: Iterable[str]) -> None:
    """Refuse columns of one name, of which it is not clear which one counts.

    Raises:
        ValueError: Names the first.
    """
    seen: set[str] = set()
    for name in columns:
        if name in seen and name:  # spreadsheets leave columns without a name behind
            raise ValueError(f"it has two columns {printable(name)!r}")
        seen.add(name)


def _read_parquet(path: Path) -> list[Row]:
    import_datasets()  # which brings pyarrow, or says what does
    from pyarrow import parquet

    check_regular([path])
    return parquet.read_table(path).to_pylist()


_READERS = {".csv": _read_csv, ".jsonl": _read_json_lines, ".parquet": _read_parquet}


def _find_column(rows: Sequence[Row], column: str | None, file: str) -> str | None:
    """Find the column of labels in a metadata file; None if it has none."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if column is not None:
        return column if column in columns else None
    likely = [name for name in columns if isinstance(name, str) and name.lower() in LABEL_NAMES]
    if len(likely) > 1:
        raise ValueError(f"label_column must be given, one of {likely} in {printable(file)}")
    return likely[0] if likely else None


def _typed(labels: list[Any]) -> list[Any]:
    """Take words for integers where all are, as in a CSV file."""
    try:
        if all(isinstance(label, str) and str(int(label)) == label.strip() for label in labels):
            return [int(label) for label in labels]
    except ValueError:
        pass
    return labels
