"""The cache: content decides, damage is seen and repaired, and nothing half built is ever used."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.image_samples import encoded, flat, noise, write_folder
from PIL import Image, ImageFile

from ddpm_pipeline.data import preparing
from ddpm_pipeline.data.cache import prepare
from ddpm_pipeline.data.decoding import Preparation
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.places import default_cache_dir
from ddpm_pipeline.data.prepared import Pixels
from ddpm_pipeline.data.sources.arrays import array_source
from ddpm_pipeline.data.sources.folders import folder_source

IMAGES = {f"{i:03d}.png": encoded(noise(8, 8, seed=i)) for i in range(100)}
EXPECTED = np.stack([noise(8, 8, seed=i)[None] for i in range(100)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", IMAGES)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def opened(folder: Path, cache: Path, **options: object) -> Pixels:
    settings = Preparation(8, **options)
    return prepare(folder_source(folder), settings, cache_dir=cache, progress=False)


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever decodes an image from here on fails."""

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "decode", fail)


def test_images_in_order(folder: Path, cache: Path) -> None:
    pixels = opened(folder, cache)
    np.testing.assert_array_equal(pixels.values, EXPECTED)
    assert isinstance(pixels.values, np.memmap)
    assert (pixels.channels, pixels.dropped, pixels.changes) == (1, (), {})


def test_the_second_opening_reads_no_image(folder: Path, cache: Path) -> None:
    first = opened(folder, cache)
    source = folder_source(folder)
    for name in IMAGES:
        (folder / name).unlink()
    second = prepare(source, Preparation(8), cache_dir=cache, progress=False)
    np.testing.assert_array_equal(second.values, EXPECTED)
    assert second.fingerprint == first.fingerprint


@pytest.mark.parametrize("change", ["touched", "moved", "copied"])
def test_the_same_files_are_not_decoded_again(
    folder: Path, cache: Path, tmp_path: Path, change: str, request: pytest.FixtureRequest
) -> None:
    first = opened(folder, cache)
    request.getfixturevalue("no_decoding")
    if change == "touched":
        (folder / "003.png").touch()
    elif change == "moved":
        folder = folder.rename(tmp_path / "elsewhere")
    else:
        folder = write_folder(tmp_path / "copy" / "deep", IMAGES)
    assert opened(folder, cache).fingerprint == first.fingerprint


def test_other_content_is_other_pixels(folder: Path, cache: Path) -> None:
    first = opened(folder, cache)
    (folder / "003.png").write_bytes(flat(9))
    second = opened(folder, cache)
    assert (second.values[3] == 9).all()
    assert second.fingerprint != first.fingerprint


def test_settings_are_part_of_the_fingerprint(folder: Path, cache: Path) -> None:
    options = [{}, {"channels": 3}, {"fit": "pad"}, {"crop": "random"}]
    prints = {opened(folder, cache, **option).fingerprint for option in options}
    assert len(prints) == 4
    assert opened(folder, cache, channels=1).fingerprint in prints  # what None finds out


def test_no_path_is_kept(folder: Path, cache: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_bytes(b"junk")
    opened(folder, cache)
    written = [path for path in cache.rglob("*") if path.is_file()]
    assert len(written) >= 3
    for path in written:
        assert str(tmp_path).encode() not in path.read_bytes()


def damage_header(entry: Path) -> None:
    path = entry / "header.json"
    path.write_bytes(path.read_bytes().replace(b"100", b"200"))


def damage_channels(entry: Path) -> None:
    path = entry / "header.json"
    path.write_bytes(path.read_bytes().replace(rb"\"channels\": 1", rb"\"channels\": 3"))


def swap_entry(entry: Path) -> None:
    record = json.loads((entry / "header.json").read_text())
    header = record["header"].replace(entry.name, "0" * 32)
    record = {"header": header, "sha256": hashlib.sha256(header.encode()).hexdigest()}
    (entry / "header.json").write_text(json.dumps(record))


DAMAGES = {
    "header changed": damage_header,
    "header changed where nothing shows": damage_channels,
    "header of another entry": swap_entry,
    "header cut short": lambda entry: os.truncate(entry / "header.json", 40),
    "header lost": lambda entry: (entry / "header.json").unlink(),
    "pixels cut short": lambda entry: os.truncate(entry / "pixels.u8", 6399),
    "pixels too long": lambda entry: os.truncate(entry / "pixels.u8", 6401),
    "pixels empty": lambda entry: os.truncate(entry / "pixels.u8", 0),
    "pixels lost": lambda entry: (entry / "pixels.u8").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_built_again(
    folder: Path, cache: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    fingerprint = opened(folder, cache).fingerprint
    DAMAGES[damage](cache / fingerprint)
    np.testing.assert_array_equal(opened(folder, cache).values, EXPECTED)
    assert f"{fingerprint} is damaged" in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(opened(folder, cache).values, EXPECTED)
    assert not caplog.text


def test_a_damaged_key_is_written_again(
    folder: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(folder, cache)
    key = next(cache.glob("*.json"))
    key.write_text("{")
    np.testing.assert_array_equal(opened(folder, cache).values, EXPECTED)
    assert f"{key.name} is damaged" in caplog.text


def test_writing_to_the_batch_leaves_the_file_alone(folder: Path, cache: Path) -> None:
    opened(folder, cache).values[:] = 0
    np.testing.assert_array_equal(opened(folder, cache).values, EXPECTED)


PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from ddpm_pipeline.data import preparing
from ddpm_pipeline.data.cache import prepare
from ddpm_pipeline.data.images import open_images
from ddpm_pipeline.data.decoding import Preparation
from ddpm_pipeline.data.sources.folders import folder_source
decode, inspect, calls, looks = preparing.decode, preparing.inspect_image, 0, 0
def counted(raw, settings):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.002)
    return decode(raw, settings)
def looked(raw, settings):
    global looks
    looks += 1
    time.sleep(0.002)
    return inspect(raw, settings)
preparing.decode, preparing.inspect_image = counted, looked
print("ready", flush=True)
sys.stdin.readline()
pixels = prepare(folder_source(Path(sys.argv[1])), Preparation(8), cache_dir=sys.argv[2],
                 num_threads=1, progress=False)
print(looks, calls, int(pixels.values.sum()))
"""


def start(folder: Path, cache: Path, kill_at: int = -1, before: str = "") -> subprocess.Popen:
    command = [sys.executable, "-c", before + PROGRAM, str(folder), str(cache), str(kill_at)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def run_together(*runs: subprocess.Popen) -> list[tuple[str, str]]:
    """What programs say that go on at the same moment."""
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    return sorted(run.communicate(timeout=100) for run in runs)


def test_two_processes_at_once_build_once(folder: Path, cache: Path) -> None:
    results = run_together(start(folder, cache), start(folder, cache))
    total = int(EXPECTED.sum())
    assert results == [(f"0 0 {total}\n", ""), (f"100 100 {total}\n", "")]


def test_two_folders_of_the_same_images_at_once_are_built_once(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    copy = write_folder(tmp_path / "copy", IMAGES)
    results = run_together(start(folder, cache), start(copy, cache))
    total = int(EXPECTED.sum())
    assert results == [(f"100 0 {total}\n", ""), (f"100 100 {total}\n", "")]


def test_a_killed_build_leaves_no_entry(folder: Path, cache: Path) -> None:
    run = start(folder, cache, kill_at=80)
    run_together(run)
    assert run.returncode == -signal.SIGKILL
    assert [p.suffix for p in cache.iterdir() if p.is_dir()] == [".tmp"]
    np.testing.assert_array_equal(opened(folder, cache).values, EXPECTED)
    assert [p.suffix for p in cache.iterdir() if p.is_dir()] == [""]


def test_a_full_disk_leaves_no_entry(folder: Path, cache: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))\n"
    [(_, errors)] = run_together(start(folder, cache, before=limit))
    last = errors.strip().splitlines()[-1]
    assert last == f"OSError: [Errno 27] the image cache {str(cache)!r} failed: File too large"
    assert not [p for p in cache.iterdir() if p.is_dir()]
    np.testing.assert_array_equal(opened(folder, cache).values, EXPECTED)


def test_a_cache_that_cannot_be_made(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"the image cache '.*file/x' failed: Not a directory"):
        opened(folder, tmp_path / "file" / "x")


@pytest.fixture
def broken(folder: Path) -> Path:
    """Three of 103 files are not images, each found out at another stage."""
    bad = {"004x.png": b"junk", "050x.png": b"", "099x.png": encoded(noise(64, 64))[:900]}
    return write_folder(folder, bad)


def test_unreadable_images_are_skipped_counted_and_named(
    broken: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):  # decoding, and from the cache
        caplog.clear()
        pixels = opened(broken, cache)
        np.testing.assert_array_equal(pixels.values, EXPECTED)
        assert pixels.dropped == (5, 52, 102)
        message = "3 of 103 images cannot be read: 004x.png (not an image); 050x.png"
        assert message in caplog.text
        assert "099x.png (image file is truncated" in caplog.text


@pytest.mark.parametrize("cached", [True, False])
def test_strict_refuses_unreadable_images(broken: Path, cache: Path, cached: bool) -> None:
    if cached:
        opened(broken, cache)
    with pytest.raises(ValueError, match=r"0..x\.png.* strict refuses that"):
        prepare(
            folder_source(broken), Preparation(8), cache_dir=cache, strict=True, progress=False
        )


def test_random_crops_keep_the_longer_side(tmp_path: Path, cache: Path) -> None:
    images = [noise(8, 12), noise(8, 8, seed=1), noise(9, 8, seed=2)]
    write_folder(tmp_path / "data", {f"{i}.png": encoded(v) for i, v in enumerate(images)})
    for _ in range(2):
        pixels = opened(tmp_path / "data", cache, crop="random")
        assert pixels.sizes.tolist() == [[8, 12], [8, 8], [9, 8]]
        np.testing.assert_array_equal(pixels.values, np.concatenate([v.ravel() for v in images]))


def test_arrays_in_memory_are_not_cached(cache: Path) -> None:
    source = array_source(EXPECTED[:, 0], "x", None)
    pixels = prepare(source, Preparation(8), cache_dir=cache, progress=False)
    np.testing.assert_array_equal(pixels.values, EXPECTED)
    assert not cache.exists()


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint16", "float16"])
def test_arrays_of_other_numbers_need_a_range(dtype: str) -> None:
    source = array_source(np.zeros((2, 8, 8), dtype), "x", None)
    with pytest.raises(ValueError, match=rf"{dtype} images need value_range=\(low, high\)"):
        prepare(source, Preparation(8), progress=False)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DDPM_PIPELINE_CACHE", raising=False)
    home = Path(os.environ["HF_HOME"])
    assert default_cache_dir() == home / "ddpm_pipeline" / "images"
    monkeypatch.setenv("DDPM_PIPELINE_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path


# What belongs to one source is not kept by content.


GOOD = {f"{name}/{i}.png": flat(10 * k + i) for k, name in enumerate("abc") for i in (0, 1)}
KEPT = sorted(GOOD)
CUT = encoded(noise(64, 64))[:900]
BROKEN = {"empty": b"", "junk": b"junk", "cut": CUT}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("first", [(), ("a/0a.png",), ("c/9.png",)])
@pytest.mark.parametrize("then", [(), ("a/0a.png",), ("b/5.png",), ("a/!.png", "c/9.png")])
def test_labels_follow_the_source_whatever_was_broken_before(
    kind: str, first: tuple[str, ...], then: tuple[str, ...], tmp_path: Path, cache: Path
) -> None:
    folder = write_folder(tmp_path / "data", GOOD)
    for broken in (first, then, first):
        write_folder(folder, dict.fromkeys(broken, BROKEN[kind]))
        for _ in range(2):
            data = open_images(folder, resolution=8, labels=True, cache_dir=cache, progress=False)
            assert data.labels.tolist() == [0, 0, 1, 1, 2, 2]
            assert data.values[:, 0, 0, 0].tolist() == [0, 1, 10, 11, 20, 21]
            assert (data.skipped, data.names) == (len(broken), KEPT)
            named = [name for group in data.found.skipped.values() for name in group.names]
            assert sorted(named) == sorted(broken)
            if broken:
                with pytest.raises(ValueError, match="strict refuses that"):
                    open_images(folder, resolution=8, cache_dir=cache, strict=True, progress=False)
        for name in broken:
            (folder / name).unlink()


def test_nothing_of_a_source_is_in_what_is_kept_by_content(tmp_path: Path, cache: Path) -> None:
    """Two folders of the same readable images share an entry, whatever else they hold."""
    entries = set()
    for name, more in {"x": {"0.png": b"", "z9.png": CUT}, "y": {"3x.png": b"?"}}.items():
        folder = write_folder(tmp_path / name, {"1.png": flat(1), "2.png": flat(2)} | more)
        opened(folder, cache)
        for entry in cache.glob("*/header.json"):
            entries.add(entry.parent.name)
            content = entry.read_text()
            assert not any(part in content for part in ("0.png", "z9", "3x", str(tmp_path)))
    assert len(entries) == 2  # an image that has a header is content, one that has none is not


def old_version(cache: Path, dropped: list[int]) -> None:
    """Make a cache what earlier versions wrote, with the facts of a source kept by content."""
    (entry,) = cache.glob("*/header.json")
    header = json.loads(json.loads(entry.read_text())["header"])
    header = {k: v for k, v in header.items() if k not in {"undecodable", "pillow"}}
    text = json.dumps(header | {"dropped": dropped, "errors": ["x"] * len(dropped)})
    record = {"header": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    entry.write_text(json.dumps(record))
    for quick in cache.glob("*.json"):
        quick.write_text(json.dumps({"fingerprint": entry.parent.name}))


@pytest.mark.parametrize("broken", ["a/0a.png", "c/9.png"])
def test_entries_of_earlier_versions_that_left_images_out_are_not_believed(
    broken: str, tmp_path: Path, cache: Path
) -> None:
    folder = write_folder(tmp_path / "data", GOOD | {broken: b""})
    for dropped in ([1], [6], []):
        opened(folder, cache)
        old_version(cache, dropped)
        data = open_images(folder, resolution=8, labels=True, cache_dir=cache, progress=False)
        assert (data.labels.tolist(), data.names) == ([0, 0, 1, 1, 2, 2], KEPT)


def test_an_image_that_could_not_be_read_for_a_moment_is_read_the_next_time(
    folder: Path, cache: Path
) -> None:
    source = folder_source(folder)

    def read(i: int) -> bytes:
        if i == 3:
            raise OSError(5, "Input/output error")
        return source.read(i)

    flaky = replace(source, read=read)
    first = prepare(flaky, Preparation(8), cache_dir=cache, progress=False)
    assert first.errors == ("003.png (Input/output error)",)
    assert opened(folder, cache).dropped == ()


def test_an_image_that_vanishes_between_the_readings_is_an_error(
    folder: Path, cache: Path
) -> None:
    source, reads = folder_source(folder), []

    def read(i: int) -> bytes:
        reads.append(i)
        if reads.count(3) > 1:
            raise OSError(5, "Input/output error")
        return source.read(i)

    with pytest.raises(ValueError, match=r"003\.png could be read at first and then no"):
        prepare(replace(source, read=read), Preparation(8), cache_dir=cache, progress=False)
    assert not list(cache.glob("*/header.json"))


def test_truncated_images_belong_to_pillows_setting(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "data", {"a.png": CUT, "b.png": flat(1, 64)})
    for allowed in (False, True, False, True):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", allowed)
        assert opened(folder, cache).dropped == (() if allowed else (0,))


def test_a_larger_limit_reads_what_was_left_out(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "data", {"a.png": flat(1), "b.png": flat(2, 40)})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    for limit, dropped in ((None, (1,)), (2000, ()), (None, (1,)), (63, (0, 1))):
        if dropped == (0, 1):
            with pytest.raises(ValueError, match=r"2 of 2 images cannot be read: .*max_pixels=63"):
                opened(folder, cache, max_pixels=limit)
        else:
            assert opened(folder, cache, max_pixels=limit).dropped == dropped
