"""In which arithmetic float32 numbers are multiplied, and in which type long sums are kept.

    with float32_arithmetic(tf32=False):        IEEE float32, whatever the process has chosen
        ...

TensorFloat-32 keeps 10 bits of a factor's fraction, and on GPUs it is the default of convolutions.
It is good enough to train with and not to measure with.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["float32_arithmetic", "precise_dtype"]


def precise_dtype(device: torch.device) -> torch.dtype:
    """Give float64, or float32 on devices without it, such as Apple's."""
    return torch.float32 if device.type == "mps" else torch.float64


@contextmanager
def float32_arithmetic(*, tf32: bool) -> Iterator[None]:
    """Choose how products of float32 numbers are computed, for the length of a block.

    The choice is the process's: other threads compute so too. It is taken back at the end, however
    it was made before. Both of torch's interfaces say the same inside: torch.compile reads the
    older one, which raises where the newer disagrees.

    Arguments:
        tf32: Whether GPUs may use TensorFloat-32; without it the arithmetic is IEEE's, on CPUs
            too. With it CPUs compute as the process has chosen.
    """
    before = _Switches.read()
    word = "tf32" if tf32 else "ieee"
    names = {name: word for name in _switches() if not (tf32 and name.startswith("mkldnn"))}
    allowing = "high" if before.matmul == "highest" else before.matmul
    try:
        _Switches(allowing if tf32 else "highest", tf32, before.by_name | names).write()
        yield
    finally:
        before.write()


class _Switches(NamedTuple):
    """All that the process has chosen, by torch's older interface and by name.

    ``matmul`` also decides in which arithmetic CPUs multiply, unless that is chosen by name.
    """

    matmul: str
    cudnn: bool
    by_name: dict[str, str]

    @classmethod
    def read(cls) -> Self:
        """Read all; where the interfaces disagree, torch tells the older one's by raising."""
        names = {name: switch.fp32_precision for name, switch in _switches().items()}
        try:
            matmul = torch.get_float32_matmul_precision()
        except RuntimeError:
            matmul = "highest" if names["matmul"] == "tf32" else "high"
        try:
            cudnn = torch.backends.cudnn.allow_tf32
        except RuntimeError:
            cudnn = names["convolutions"] != "tf32"
        return cls(matmul, cudnn, names)

    def write(self) -> None:
        torch.set_float32_matmul_precision(self.matmul)
        torch.backends.cudnn.allow_tf32 = self.cudnn
        for name, switch in _switches().items():  # last: the older interface changes them too
            switch.fp32_precision = self.by_name[name]


def _switches() -> dict[str, object]:
    backends = torch.backends
    return {
        "matmul": backends.cuda.matmul,
        "convolutions": backends.cudnn.conv,
        "recurrent": backends.cudnn.rnn,
        "mkldnn_matmul": backends.mkldnn.matmul,
        "mkldnn_convolutions": backends.mkldnn.conv,
    }
