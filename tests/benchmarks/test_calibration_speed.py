"""What it costs to find the best chains; see trained_calibration.py for trained models."""

import subprocess
import sys
import time

from helpers.calibrations import calibration_from_errors

from ddpm_pipeline import Calibration, NoiseSchedule
from ddpm_pipeline.diffusion.costs import linear_error
from ddpm_pipeline.schedulers.optimal import optimal_timesteps

ALL_CHAINS = """
import resource, time
from ddpm_pipeline.diffusion.decoder_costs import continuous_decoder_costs
from ddpm_pipeline.diffusion.costs import linear_error, step_costs
from ddpm_pipeline.diffusion.schedule import NoiseSchedule
from ddpm_pipeline.diffusion.spacing import shortest_paths

schedule = NoiseSchedule.linear(1000)
errors = linear_error(schedule, 0.25) * 0.9
start = time.perf_counter()
costs = step_costs(schedule, errors, continuous_decoder_costs(errors))
paths = shortest_paths(costs, 100)
chains = [paths.chain(K) for K in range(1, 101)]
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_all_chains_of_up_to_100_steps_take_under_10_seconds_and_500_mb() -> None:
    command = [sys.executable, "-c", ALL_CHAINS]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, run.stdout.split())
    print(f"\nT = 1000, all K up to 100: {seconds:.2f} s; the whole process {megabytes:.0f} MB")
    assert seconds < 10
    assert megabytes < 500


def test_a_calibration_that_is_read_again_is_quick_to_use() -> None:
    schedule = NoiseSchedule.linear(1000)
    made = calibration_from_errors(schedule, linear_error(schedule, 0.25) * 0.9)
    values = made.to_dict()
    start = time.perf_counter()
    found = Calibration.from_dict(values)
    read = time.perf_counter() - start
    optimal_timesteps(found, schedule, 25)
    first = time.perf_counter() - start - read
    optimal_timesteps(found, schedule, 50)
    again = time.perf_counter() - start - read - first
    print(f"\nread {read * 1e3:.0f} ms, first chain {first:.2f} s, next {again * 1e3:.2f} ms")
    assert read < 0.1
    assert first < 5
    assert again < 0.1
