"""Signals are noted, told to all processes, and obeyed when the step has ended."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from ddpm_pipeline.training.stopping import ASKED, StopSignals

ALONE = SimpleNamespace(num_processes=1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_the_handlers_come_back(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals(ALONE) as signals:
        assert signals.received() == 0
        os.kill(os.getpid(), number)
        assert signals.received() == number
        assert signals.received(asked=True) == number
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        f"{number.name}: saving after this step"
    ]


def test_a_caller_may_ask() -> None:
    with StopSignals(ALONE) as signals:
        assert signals.received(asked=True) == ASKED
        assert signals.received() == 0
    assert ASKED not in set(signal.Signals)


def test_in_another_thread_handlers_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def run() -> None:
        with StopSignals(ALONE) as signals:
            seen.extend([signal.getsignal(signal.SIGTERM), signals.received()])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before, 0]


def test_a_second_interrupt_ends_the_process_at_once() -> None:
    code = """
import os, signal
from types import SimpleNamespace
from ddpm_pipeline.training.stopping import StopSignals
with StopSignals(SimpleNamespace(num_processes=1)) as signals:
    os.kill(os.getpid(), signal.SIGINT)
    print(signals.received(), flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("alive")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.stdout, run.returncode) == (f"{int(signal.SIGINT)}\n", -signal.SIGINT)
