"""Training killed at twenty random points, and a disk that fills up, for real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.killed_runs import children, command, kill_often, start
from helpers.training_runs import assert_same, outcome, tiny_config

KILLS = 20


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
    check = lambda run: assert_same(outcome(run), expected)  # noqa: E731
    while_writing = kill_often(config, processes, check, kills=KILLS, within=9, seed=processes)
    assert while_writing >= 3
    sys.stdout.write(f"{KILLS} kills of {processes}, {while_writing} in a checkpoint's writing\n")


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
