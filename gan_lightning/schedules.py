"""How the learning rates change over a run.

A schedule is called as `schedule(iteration, total)` before iteration number `iteration`, counted from 0, of a run of
`total`, and returns the factor on the learning rates of both networks. It has no state: a run resumes anywhere.
"""

import math


class Constant:
    """The learning rates as they are, after a linear warm-up.

    Args:
        warmup: iterations in which the rates grow linearly to their full size.
    """

    def __init__(self, warmup: int = 0) -> None:
        if warmup < 0:
            raise ValueError(f"schedule.warmup={warmup} must be 0 or more iterations")
        self.warmup = warmup

    def __call__(self, iteration: int, total: float) -> float:
        if iteration < self.warmup:
            return (iteration + 1) / (self.warmup + 1)
        return self.after_warmup(iteration, total)

    def after_warmup(self, iteration: int, total: float) -> float:
        return 1.0

    def progress(self, iteration: int, total: float) -> float:
        """Share of the iterations after the warm-up that are done, in [0, 1)."""
        if total == math.inf:
            raise ValueError("trainer.max_epochs=-1: a schedule that falls needs an end; set trainer.max_epochs")
        if total <= self.warmup:
            raise ValueError(f"schedule.warmup={self.warmup} must be less than the run's {total} iterations")
        return (iteration - self.warmup) / (total - self.warmup)


class Linear(Constant):
    """Falls in a straight line to 0 at the end of the run. `1 - t / T`"""

    def after_warmup(self, iteration: int, total: float) -> float:
        return 1 - self.progress(iteration, total)


class Cosine(Constant):
    """Half a cosine from 1 to 0. Loshchilov & Hutter 2017, without restarts. https://arxiv.org/abs/1608.03983

    `(1 + cos(pi t / T)) / 2`
    """

    def after_warmup(self, iteration: int, total: float) -> float:
        return (1 + math.cos(math.pi * self.progress(iteration, total))) / 2
