"""Training killed at twenty random points, and a disk that fills up, for real."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.paths import EXAMPLES
from helpers.training_runs import assert_same, outcome, tiny_config

from ddpm_pipeline.training.config import TrainingConfig

EXAMPLE = EXAMPLES / "train.py"
KILLS = 20


def command(config: TrainingConfig, processes: int) -> list[str]:
    defaults = TrainingConfig()
    names = [
        name
        for name in TrainingConfig.__dataclass_fields__
        if getattr(config, name) != getattr(defaults, name) and name != "random_flip"
    ]
    options = [word for name in names for word in (f"--{name}", str(getattr(config, name)))]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    start = [sys.executable, *(launcher if processes > 1 else [])]
    return [*start, str(EXAMPLE), "--random_flip", *options]


def start(config: TrainingConfig, processes: int) -> subprocess.Popen:
    return subprocess.Popen(
        command(config, processes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def children(pid: int) -> list[int]:
    words = ["ps", "-o", "pid=", "--ppid", str(pid)]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return list(map(int, found.stdout.split()))


def kill(process: subprocess.Popen) -> None:
    """SIGKILL the launcher and all that it started; torchrun gives each worker a session."""
    for pid in [process.pid, *children(process.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def half_written(run: Path) -> tuple[int, int] | None:
    """Which checkpoint is being written, or was when its process was killed."""
    try:
        found = (run / "checkpoints" / ".aside").stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("processes", "optimizer"), [(1, "adamw"), (2, "adamw"), (1, "muon"), (2, "muon")]
)
def test_twenty_kills_change_no_bit(tmp_path: Path, processes: int, optimizer: str) -> None:
    options = {
        "optimizer": optimizer,
        "max_train_steps": 600,
        "checkpointing_steps": 3,
        "logging_steps": 10,
        "save_images_steps": 150,
        "validation_size": 0.2,
        "gradient_accumulation_steps": 2,
        "train_batch_size": 4 // processes,
    }
    whole, config = (tiny_config(tmp_path / name, **options) for name in ("whole", "killed"))
    assert start(whole, processes).wait() == 0
    expected = outcome(Path(whole.output_dir))
    run, dice = Path(config.output_dir), random.Random(processes)
    kills = while_writing = 0
    while kills < KILLS:
        left = half_written(run)
        process = start(config, processes)
        while not list(run.glob("checkpoints/step-*")) and process.poll() is None:
            time.sleep(0.01)
        began = time.monotonic()
        delay, at_checkpoint = dice.uniform(0, 9), dice.random() < 0.5
        while process.poll() is None:
            writing = half_written(run) not in {None, left}
            if time.monotonic() - began > delay and (writing or not at_checkpoint):
                kill(process)
                kills += 1
                while_writing += half_written(run) not in {None, left}
                break
        else:
            assert process.returncode == 0
            assert_same(outcome(run), expected)
            subprocess.run(["rm", "-r", str(run)], check=True)
    assert while_writing >= 3
    sys.stdout.write(f"{KILLS} kills of {processes}, {while_writing} in a checkpoint's writing\n")
    assert start(config, processes).wait() == 0
    assert_same(outcome(run), expected)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_full_file_system_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    """On a tmpfs that holds one checkpoint and a half, in a mount namespace of the test's own."""
    config = tiny_config(tmp_path, lr_scheduler="constant", save_images_steps=0)
    disk = tmp_path / "disk"
    disk.mkdir()
    config = config.replace(output_dir=str(disk / "run"), checkpoints_total_limit=1)
    first = command(config.replace(max_train_steps=4), 1)
    script = f"""
        mount -t tmpfs -o size=1m none {disk} || exit 90
        "$@" --max_train_steps 4 || exit 91
        left=$(df --output=avail -k {disk} | tail -1)
        head -c $(((left - 40) * 1024)) /dev/zero > {disk}/ballast
        "$@" --max_train_steps 12
        echo "code $?"
        ls -A {disk}/run/checkpoints
        rm {disk}/ballast
        "$@" --max_train_steps 12
        echo "code $?"
        ls -A {disk}/run/checkpoints
    """
    words = (
        first[: first.index("--max_train_steps")] + first[first.index("--max_train_steps") + 2 :]
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if not line.startswith("model")]
    assert printed == ["code 1", "step-0000004", "code 0", "step-0000012"]
    (complaint,) = [line for line in done.stderr.splitlines() if line.startswith("ddpm train:")]
    assert "checkpoint of step 8 cannot be written" in complaint
    assert "No space left on device" in complaint


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_lost_worker_is_replaced_by_torchrun_and_changes_no_bit(tmp_path: Path) -> None:
    options = {"max_train_steps": 200, "checkpointing_steps": 10, "train_batch_size": 2}
    whole, config = (tiny_config(tmp_path / name, **options) for name in ("whole", "killed"))
    assert start(whole, 2).wait() == 0
    words = command(config, 2)
    words.insert(words.index("--standalone"), "--max-restarts=3")
    launcher = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run = Path(config.output_dir)
    for step in ("step-0000010", "step-0000080"):
        while not list(run.glob("checkpoints/step-*")) or newest(run) < step:
            assert launcher.poll() is None
            time.sleep(0.01)
        os.kill(children(launcher.pid)[-1], signal.SIGKILL)
    assert launcher.wait() == 0
    assert_same(outcome(run), outcome(Path(whole.output_dir)))


TWO_HOSTS = """
mount -t tmpfs none /run && mkdir /run/netns || exit 90
ip netns add host1 && ip netns add host2 || exit 91
ip link add link1 netns host1 type veth peer name link2 netns host2 || exit 92
for n in 1 2; do
    ip -n host$n addr add 10.9.0.$n/24 dev link$n
    ip -n host$n link set lo up
    ip -n host$n link set link$n up
done
run=$1; shift
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
host() {
    conf=join_timeout=120,is_host=$([ $1 = 1 ] && echo true || echo false)
    n=$1; shift
    GLOO_SOCKET_IFNAME=link$n exec ip netns exec host$n "$1" -m torch.distributed.run \
        --nnodes=2 --nproc_per_node=1 --max_restarts=5 --rdzv_backend=c10d --rdzv_id=run \
        --rdzv_endpoint=10.9.0.1:29400 --local_addr=10.9.0.$n --rdzv_conf=$conf "${@:2}"
}
reaches() {
    until [[ $(ls $run/checkpoints 2>/dev/null | tail -1) > step-$1 ]]; do
        kill -0 $first || exit 93
        sleep 0.05
    done
}
host 1 "$@" & first=$!
host 2 "$@" & second=$!
reaches 0000020; kill -9 $(ps -o pid= --ppid $second)
reaches 0000060; kill -9 $(ps -o pid= --ppid $first)
reaches 0000100; kill -9 $second $(ps -o pid= --ppid $second)
host 2 "$@" & second=$!
wait $first; echo "host 1: $?"
wait $second; echo "host 2: $?"
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("ip") is None, reason="needs the command `ip`")
def test_workers_and_a_host_that_are_lost_change_no_bit(tmp_path: Path) -> None:
    """Two hosts, being network namespaces with a cable, of which the second is lost and back."""
    options = {"max_train_steps": 150, "checkpointing_steps": 10, "train_batch_size": 2}
    whole, config = (tiny_config(tmp_path / name, **options) for name in ("whole", "killed"))
    assert start(whole, 2).wait() == 0
    run = Path(config.output_dir)
    alone = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    done = subprocess.run(
        [*alone, "bash", "-c", TWO_HOSTS, "bash", str(run), *command(config, 1)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-2:] == ["host 1: 0", "host 2: 0"], done.stderr
    assert done.stderr.count("going on from") >= 3
    assert_same(outcome(run), outcome(Path(whole.output_dir)))


def newest(run: Path) -> str:
    return max((path.name for path in run.glob("checkpoints/step-*")), default="")
