"""Labels of image folders from metadata files, in every form that they come in."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from helpers.image_samples import flat, write_folder
from pyarrow import parquet as pq

from ddpm_pipeline.data.sources.folders import folder_source

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = {f"{i}.png": flat(i) for i in range(4)}


def lines(labels: list, column: str = "label", names: list[str] | None = None) -> bytes:
    names = names or list(IMAGES)
    rows = [{"file_name": n, column: v} for n, v in zip(names, labels, strict=True)]
    return "\n".join(json.dumps(row) for row in rows).encode()


def table(labels: list, column: str = "label", names: list[str] | None = None) -> bytes:
    rows = zip(names or list(IMAGES), labels, strict=True)
    return f"file_name,{column}\n".encode() + "".join(f"{n},{v}\n" for n, v in rows).encode()


def parquet(labels: list, column: str = "label") -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"file_name": list(IMAGES), column: labels}), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("column", ["label", "kind"])
@pytest.mark.parametrize(
    ("labels", "expected", "names"),
    [
        ([0, 1, 0, 1], [0, 1, 0, 1], None),
        (["dog", "cat", "dog", "cat"], [1, 0, 1, 0], ("cat", "dog")),
    ],
)
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_labels(
    form: str, labels: list, expected: list, names: tuple | None, column: str, tmp_path: Path
) -> None:
    content = {"csv": table, "jsonl": lines, "parquet": parquet}[form](labels, column)
    write_folder(tmp_path, IMAGES | {f"metadata.{form}": content})
    given = None if column == "label" else column
    source = folder_source(tmp_path, labels=True, label_column=given)
    assert (source.labels.tolist(), source.class_names) == (expected, names)
    assert source.labels_from == f"metadata.{form}, column {column!r}"
    assert folder_source(tmp_path).labels is None


def test_names_are_known_however_their_letters_are_composed(tmp_path: Path) -> None:
    parts, whole = "cafe\u0301.png", "caf\u00e9.png"
    for i, (stored, said) in enumerate([(parts, whole), (whole, parts), (whole, whole)]):
        root = write_folder(tmp_path / str(i), {stored: flat(0)})
        write_folder(root, {"metadata.csv": table(["x"], names=[said])})
        assert folder_source(root, labels=True).class_names == ("x",)
    both = write_folder(tmp_path / "both", {parts: flat(0), whole: flat(1)})
    write_folder(both, {"metadata.csv": table([0, 1], names=[parts, whole])})
    assert folder_source(both, labels=True).labels.tolist() == [0, 1]


def test_spaces_after_commas_do_not_count(tmp_path: Path) -> None:
    content = b'file_name, label\n0.png, cat\n1.png, "a, b"\n'
    root = write_folder(tmp_path, {"0.png": flat(0), "1.png": flat(1), "metadata.csv": content})
    assert folder_source(root, labels=True).class_names == ("a, b", "cat")


def test_columns_without_a_name_do_not_count(tmp_path: Path) -> None:
    rows = b"".join(b"%d.png,%d,,\n" % (i, i % 2) for i in range(len(IMAGES)))
    write_folder(tmp_path, IMAGES | {"metadata.csv": b"file_name,label,,\n" + rows})
    assert folder_source(tmp_path, labels=True).labels.tolist() == [0, 1, 0, 1]


def test_a_file_speaks_for_the_folder_that_it_is_in(tmp_path: Path) -> None:
    files = {
        f"{part}/{k}/{i}.png": flat(i) for part in ("train", "test") for k in "ab" for i in (0, 1)
    }
    for part in ("train", "test"):
        files[f"{part}/metadata.csv"] = table(
            [3, 2, 1, 0], names=["a/0.png", "./a/1.png", "b/0.png", "b/1.png"]
        )
    source = folder_source(write_folder(tmp_path, files), labels=True)
    assert (source.split, source.labels.tolist()) == ("train", [3, 2, 1, 0])
    both = write_folder(tmp_path / "x", {"a/0.png": flat(0), "b/0.png": flat(1)})
    write_folder(
        both, {f"{k}/metadata.csv": table([i], names=["0.png"]) for i, k in enumerate("ab")}
    )
    assert folder_source(both, labels=True).labels.tolist() == [0, 1]


def test_folders_are_classes_where_metadata_say_nothing_of_them(tmp_path: Path) -> None:
    files = {f"{k}/{i}.png": flat(i) for k in "ab" for i in range(2)}
    content = table(["x"] * 4, "caption", names=list(files))
    source = folder_source(write_folder(tmp_path, files | {"metadata.csv": content}), labels=True)
    assert (source.class_names, source.labels_from) == (("a", "b"), "the names of folders")


# Labels that hold what some programs take for the end of a line.
ODD_LABELS = ["a\u2028b", "c\x85d", "e\x0cf", 'a "b", c']


@pytest.mark.parametrize("form", ["csv", "csv of Windows", "jsonl"])
def test_labels_may_hold_any_characters(form: str, tmp_path: Path) -> None:
    labels = [*ODD_LABELS[:3], "two\nlines"]
    for values in (ODD_LABELS, labels):
        if form == "jsonl":
            rows = zip(IMAGES, values, strict=True)
            made = [{"file_name": name, "label": value} for name, value in rows]
            text = "\n".join(json.dumps(row, ensure_ascii=False) for row in made)
        else:
            buffer = io.StringIO(newline="")
            end = "\n" if form == "csv" else "\r\n"
            rows = [("file_name", "label"), *zip(IMAGES, values, strict=True)]
            csv.writer(buffer, lineterminator=end).writerows(rows)
            text = buffer.getvalue()
        name = f"metadata.{form.split(maxsplit=1)[0]}"
        content = ("" if form == "csv" else "\ufeff") + text
        write_folder(tmp_path, IMAGES | {name: content.encode()})
        source = folder_source(tmp_path, labels=True)
        assert [source.class_names[n] for n in source.labels] == values


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            {"metadata.csv": table([0, 1, 0], names=["0.png", "1.png", "2.png"])},
            {},
            "labels missing for 1 of 4 images, as 3.png",
        ),
        (
            {"metadata.jsonl": lines([0, None, 0, 1])},
            {},
            "labels missing for 1 of 4 images, as 1.png",
        ),
        *(
            (
                {"metadata.csv": table(["cat", blank, "cat", "dog"])},
                {},
                f"metadata.csv has no label in row 2, 1.png: its 'label' is {blank!r}; classes",
            )
            for blank in ("nan", "NaN", "N/A", "NA", "None", "null", "<NA>")
        ),
        (
            {"metadata.jsonl": lines([0, 1, float("nan"), 1])},
            {},
            "metadata.jsonl has no label in row 3, 2.png: its 'label' is nan$",
        ),
        (
            {"metadata.csv": table([0] * 5, names=[*IMAGES, "9.png"])},
            {},
            "labels of 1 images that are not there, as 9.png",
        ),
        (
            {"metadata.csv": table([0] * 4)},
            {"label_column": "kind"},
            r"label_column='kind' must be one of \['label'\] in metadata.csv",
        ),
        (
            {"metadata.csv": b"file_name,label,class\n0.png,1,2\n"},
            {},
            r"label_column must be given, one of \['label', 'class'\]",
        ),
        (
            {"metadata.csv": b"name,label\n0.png,1\n"},
            {},
            "metadata.csv has no 'file_name' in row 1",
        ),
        (
            {"metadata.csv": b"file_name;label\n0.png;1\n"},
            {},
            "metadata.csv has no 'file_name' in row 1, which has 'file_name;label'",
        ),
        (
            {"metadata.csv": b"file_name,label,label\n0.png,cat,dog\n"},
            {},
            "metadata.csv cannot be read: it has two columns 'label'",
        ),
        (
            {"metadata.jsonl": b'{"file_name": "0.png", "label": 1, "label": 2}'},
            {},
            "metadata.jsonl cannot be read: it has two columns 'label'",
        ),
        ({"metadata.jsonl": b"{"}, {}, "metadata.jsonl cannot be read"),
        (
            {},
            {"label_column": "label"},
            "label_column='label' has no meaning for .*, which holds none of",
        ),
        (
            {"metadata.csv": table([0, 1, 0, 1, 1], names=[*IMAGES, "./0.png"])},
            {},
            r"metadata.csv has two labels of 0\.png: '0' and '1'",
        ),
        (
            {"metadata.csv": b"file_name,label\n0.png,a,b\n"},
            {},
            "metadata.csv has more cells in row 1 than columns",
        ),
        (
            {"metadata.parquet": b"no parquet"},
            {},
            "metadata.parquet cannot be read",
        ),
        (
            {"metadata.csv": table([0] * 4)},
            {"labels": False, "label_column": "label"},
            "has no meaning for images without labels=True",
        ),
    ],
)
def test_what_is_refused(files: dict, options: dict, message: str, tmp_path: Path) -> None:
    write_folder(tmp_path, IMAGES | files)
    with pytest.raises(ValueError, match=message):
        folder_source(tmp_path, **{"labels": True} | options)
