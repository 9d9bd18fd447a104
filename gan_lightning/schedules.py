"""How a number changes over a run: the learning rates of both networks, or the weight of a penalty.

A schedule is called as `schedule(iteration, total)` before iteration number `iteration`, counted from 0, of a run of
`total` (infinity where the run has no end), and returns the factor on that number. It has no state: a run resumes
anywhere.
"""

import math
from collections.abc import Callable

Schedule = Callable[[int, float], float]


class Constant:
    """The number as it is, after a linear warm-up.

    Args:
        warmup: iterations in which it grows linearly to its full size.

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


class Falling(Constant):
    """Falls from 1 to `final` at the end of the run.

    Args:
        warmup: as above.
        final: factor at the end, 0 or more.

    Raises:
        ValueError: if warmup or final is negative; when called, if the run has no end or ends before the warm-up.
    """

    def __init__(self, warmup: int = 0, final: float = 0.0) -> None:
        super().__init__(warmup)
        if final < 0:
            raise ValueError(f"schedule.final={final} must be 0 or more")
        self.final = final

    def __call__(self, iteration: int, total: float) -> float:
        if total == math.inf:
            raise ValueError("trainer.max_epochs=-1: a schedule that falls needs an end; set trainer.max_epochs")
        return super().__call__(iteration, total)


class Linear(Falling):
    """In a straight line. `final + (1 - final) (1 - t / T)`"""

    def factor(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 - progress)


class Cosine(Falling):
    """Along half a cosine. Loshchilov & Hutter 2017, without restarts. https://arxiv.org/abs/1608.03983

    `final + (1 - final) (1 + cos(pi t / T)) / 2`
    """

    def factor(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
