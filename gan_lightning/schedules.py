"""How the learning rates change over a run.

A schedule is called as `schedule(iteration, total)` before iteration number `iteration`, counted from 0, of a run of
`total` (infinity where the run has no end), and returns the factor on the learning rates of both networks. It has no
state: a run resumes anywhere.
"""

import math


class Constant:
    """The learning rates as they are, after a linear warm-up.

    Args:
        warmup: iterations in which the rates grow linearly to their full size.

    Raises:
        ValueError: if warmup is negative; when called, if the run ends before it.
    """

    def __init__(self, warmup: int = 0) -> None:
        if warmup < 0:
            raise ValueError(f"schedule.warmup={warmup} must be 0 or more iterations")
        self.warmup = warmup

    def __call__(self, iteration: int, total: float) -> float:
        if total <= self.warmup:
            raise ValueError(f"schedule.warmup={self.warmup} must be less than the run's {total} iterations")
        if iteration < self.warmup:
            return (iteration + 1) / (self.warmup + 1)
        return self.factor((iteration - self.warmup) / (total - self.warmup))

    def factor(self, progress: float) -> float:
        """The factor after the warm-up, of which the share `progress` in [0, 1) is done."""
        return 1.0


class Linear(Constant):
    """Falls in a straight line to 0 at the end of the run. `1 - t / T`"""

    def __call__(self, iteration: int, total: float) -> float:
        _check_end(total)
        return super().__call__(iteration, total)

    def factor(self, progress: float) -> float:
        return 1 - progress


class Cosine(Constant):
    """Half a cosine from 1 to 0. Loshchilov & Hutter 2017, without restarts. https://arxiv.org/abs/1608.03983

    `(1 + cos(pi t / T)) / 2`
    """

    def __call__(self, iteration: int, total: float) -> float:
        _check_end(total)
        return super().__call__(iteration, total)

    def factor(self, progress: float) -> float:
        return (1 + math.cos(math.pi * progress)) / 2


def _check_end(total: float) -> None:
    if total == math.inf:
        raise ValueError("trainer.max_epochs=-1: a learning rate that falls needs an end; set trainer.max_epochs")
