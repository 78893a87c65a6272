"""Refusing what does not fit into memory before it is tried.

    check_memory(rows * bytes_of_a_row, "a call of 4000000 rows", "give a smaller batch_size")

A process that asks for too much is killed without a word, or takes the machine with it.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["available_memory", "check_memory"]

_GROUP = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Give the bytes that this process can still take.

    The least of what the machine has, what its control group (as of a container) is left with, and
    what the limit of its address space, as by ``ulimit -v``, leaves it.
    """
    import psutil

    rooms = [psutil.virtual_memory().available, _room_in_group(), _room_in_address_space()]
    return max(0, min(room for room in rooms if room is not None))


def check_memory(needed: int, what: str, advice: str) -> None:
    """Refuse what takes more memory than there is.

    Arguments:
        needed: Bytes, at least.
        what: What takes them, for the message.
        advice: What to do instead.
    Raises:
        ValueError: If there are not as many.
    """
    # Asking costs about a millisecond, and what is this small fits or nothing does.
    if needed < 2**26:
        return
    room = available_memory()
    if needed > room:
        raise ValueError(
            f"{what} takes at least {needed / 1e9:.1f} GB of memory, and {room / 1e9:.1f} GB are "
            f"free: {advice}"
        )


def _room_in_group() -> int | None:
    """Give what the control group is left with; None where there is none, or no limit."""
    try:
        limit, used = (int((_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        lines = (_GROUP / "memory.stat").read_text().splitlines()
        kept = dict(line.split() for line in lines)
    except (OSError, ValueError):
        return None
    return limit - used + int(kept.get("inactive_file", 0))  # files that may be let go of


def _room_in_address_space() -> int | None:
    """Give what the process's own limit leaves it; None where there is none."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    import psutil

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit - psutil.Process().memory_info().vms
