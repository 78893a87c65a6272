"""Options of the mathematics that are checked before torch is imported."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ddpm_pipeline.diffusion.choices import check_eta, check_num_steps


@pytest.mark.parametrize("K", [0, 11, 2.5, True, None])
def test_a_chain_has_one_to_all_timesteps(K: object) -> None:
    with pytest.raises(ValueError, match="num_inference_steps must be an integer from 1 to 10"):
        check_num_steps(K, 10)
    assert [check_num_steps(k, 10) for k in (1, np.int64(10))] == [1, 10]


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan"), True, "0"])
def test_eta_is_a_share(eta: object) -> None:
    with pytest.raises(ValueError, match=r"eta must be a number in \[0, 1\], got"):
        check_eta(eta)
    check_eta(0)
    check_eta(1.0)


def test_they_cost_nothing_to_import() -> None:
    code = (
        "import sys; from ddpm_pipeline.diffusion import check_eta, check_loss, check_num_steps; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
