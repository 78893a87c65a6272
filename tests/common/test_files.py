"""Files are the old ones or the new ones, whatever happens to their writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from ddpm_pipeline.common.files import (
    discard_unfinished,
    sync_path,
    write_aside,
    write_bytes,
    write_figure,
    write_picture,
    write_text,
    written_aside,
)

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = b"old" * 1000, b"new" * 50_000
PREAMBLE = (
    "import os, resource, signal, sys\n"
    "from pathlib import Path\n"
    "from ddpm_pipeline.common.files import write_aside, write_bytes\n"
    "path = Path(sys.argv[1])\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file.bin").write_bytes(OLD)
    return tmp_path / "file.bin"


def test_the_new_content_replaces_the_old_at_the_end_of_the_block(path: Path) -> None:
    with write_aside(path) as file:
        file.write(NEW)
        file.flush()
        assert path.read_bytes() == OLD
    assert path.read_bytes() == NEW
    assert list(path.parent.iterdir()) == [path]


def write_part(path: Path, error: BaseException) -> None:
    with write_aside(path) as file:
        file.write(NEW[:9])
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_the_old_content(
    path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        write_part(path, error())
    assert path.read_bytes() == OLD
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_was_never_whole_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"):
        write_part(tmp_path / "file", ValueError("stop"))
    assert list(tmp_path.iterdir()) == []


def run(code: str, path: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PREAMBLE + code, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("place", ["in the block", "before the name"])
def test_a_killed_writer_leaves_the_old_content(path: Path, place: str) -> None:
    code = {
        "in the block": "    file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n",
        "before the name": "    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n",
    }[place]
    code = "with write_aside(path) as file:\n    file.write(b'new' * 50_000)\n" + code
    assert run(code, path).returncode == -signal.SIGKILL
    assert path.read_bytes() == OLD
    [left] = set(path.parent.iterdir()) - {path}
    write_bytes(path, NEW)  # the leftover is in nobody's way
    assert path.read_bytes() == NEW
    discard_unfinished(path.parent, "other")
    assert left.exists()
    discard_unfinished(path.parent, path.name)
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_content(path: Path) -> None:
    code = (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "write_bytes(path, b'new' * 50_000)\n"
    )
    failed = run(code, path)
    assert failed.stderr.splitlines()[-1].startswith("OSError: [Errno 27] File too large")
    assert path.read_bytes() == OLD
    assert list(path.parent.iterdir()) == [path]


def test_readers_never_see_a_part_of_a_file(path: Path) -> None:
    code = (
        "print('ready', flush=True)\n"
        "for i in range(300):\n"
        "    write_bytes(path, bytes([i % 256]) * 300_000, sync=False)\n"
    )
    write_bytes(path, bytes(300_000))
    command = [sys.executable, "-c", PREAMBLE + code, str(path)]
    seen = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "ready\n"
        while writer.poll() is None:
            content = path.read_bytes()
            assert len(content) == 300_000
            assert len(set(content)) == 1
            seen.add(content[0])
    assert writer.returncode == 0
    assert len(seen) > 1


@pytest.mark.parametrize("sync", [True, False])
def test_content_is_on_the_disk_before_its_name_if_asked(
    path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_bytes()))
    write_bytes(path, NEW, sync=sync)
    assert synced == [OLD, NEW] * sync  # the content, then the name
    assert path.read_bytes() == NEW


def test_text_is_utf_8_with_its_line_ends(path: Path) -> None:
    write_text(path, "Fréchet ±\r\n2\n")
    assert path.read_bytes() == "Fréchet ±\r\n2\n".encode()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "absent" / "file", NEW)


def test_files_and_folders_can_be_synced(path: Path) -> None:
    sync_path(path)
    sync_path(path.parent)
    with pytest.raises(FileNotFoundError):
        sync_path(path.parent / "absent")


# Names, pictures, folders.


def test_a_name_of_any_length_and_bytes_can_be_written(tmp_path: Path) -> None:
    for name in ("a" * 250, os.fsdecode(b"caf\xe9"), "[a] {b} c"):
        write_text(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 3


def test_names_in_text_are_the_bytes_that_they_are(tmp_path: Path) -> None:
    write_text(tmp_path / "names", os.fsdecode(b"caf\xe9") + " ü")
    assert (tmp_path / "names").read_bytes() == b"caf\xe9 " + "ü".encode()


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", ""])
def test_figures_are_whole_or_what_they_were(tmp_path: Path, suffix: str) -> None:
    from matplotlib.figure import Figure

    path = tmp_path / (f"a.{suffix}" if suffix else "a")
    path.write_text("old")
    broken = Figure()
    broken.savefig = lambda file, **_: (file.write(b"half"), 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_figure(path, broken)
    assert path.read_text() == "old"
    write_figure(path, Figure())
    assert path.stat().st_size > 100
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_pictures_are_png_whatever_they_are_called(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg", Image.new("RGBA", (2, 3)))
    with Image.open(tmp_path / "a.jpg") as picture:
        assert (picture.format, picture.size) == ("PNG", (2, 3))


def test_a_folder_is_written_aside(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/kept").write_text("1")
    (tmp_path / "old/a").write_text("1")

    def write(*, fails: bool) -> None:
        with written_aside(tmp_path / "old") as aside:
            (aside / "sub").mkdir()
            (aside / "sub/b").write_text("2")
            (aside / "a").write_text("2")
            if fails:
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(fails=True)
    assert sorted(p.name for p in (tmp_path / "old").iterdir()) == ["a", "kept"]
    assert (tmp_path / "old/a").read_text() == "1"
    write(fails=False)
    assert sorted(p.name for p in (tmp_path / "old").iterdir()) == ["a", "kept", "sub"]
    assert (tmp_path / "old/a").read_text() == (tmp_path / "old/sub/b").read_text() == "2"
    assert (tmp_path / "old/kept").read_text() == "1"
