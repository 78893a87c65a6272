"""Random moves t → s of random schedules, and data, for laws that hold for all of them."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from ddpm_pipeline import NoiseSchedule
from ddpm_pipeline.diffusion.schedule import SCHEDULES

__all__ = ["data", "moves", "schedules"]

schedules = st.builds(NoiseSchedule.named, st.sampled_from(sorted(SCHEDULES)), st.integers(2, 200))


@st.composite
def moves(draw: st.DrawFn, zero_snr: bool = True) -> tuple[NoiseSchedule, int, int]:
    """A schedule and a pair -1 <= s < t < T."""
    schedule = draw(schedules)
    if zero_snr and draw(st.booleans()):
        schedule = schedule.zero_terminal_snr()
    t = draw(st.integers(0, len(schedule) - 1))
    return schedule, t, draw(st.integers(-1, t - 1))


def data(*shape: int) -> Tensor:
    return torch.randn(shape or (4, 2, 3, 3), dtype=torch.float64)
