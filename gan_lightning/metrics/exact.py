"""The same float32 in every run: full precision, no gradients."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32() -> Iterator[None]:
    """Full float32 and no gradients, even within a run that trains in bfloat16 or TF32. Also a decorator."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
            torch.no_grad(),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
