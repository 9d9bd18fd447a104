"""How a number changes over a run: the learning rates of both networks, the weight of a penalty, Adam's `1 - beta2`.

A schedule is called as `schedule(iteration, total)` before iteration number `iteration`, counted from 0, of a run of
`total` iterations (infinity for a run without an end). It returns the factor on that number. It has no state, so a run
can resume anywhere.
"""

import math
from abc import abstractmethod
from typing import Any, Protocol


class Schedule(Protocol):
    """What any schedule has. Its errors name its own arguments; the caller adds the key before them."""

    final: float  # the factor at its end

    def __call__(self, iteration: int, total: float) -> float: ...


class Ramp(Schedule):
    """Linear warm-up, then `factor`, which each schedule defines.

    Args:
        warmup: iterations in which the number grows linearly to its full size.

    Raises:
        ValueError: if warmup is negative; when called, if the run ends before the warm-up.
    """

    final = 1.0

    def __init__(self, warmup: int = 0) -> None:
        if warmup < 0:
            raise ValueError(f"warmup={warmup} must be 0 or more iterations")
        self.warmup = warmup

    def __call__(self, iteration: int, total: float) -> float:
        if total <= self.warmup:
            raise ValueError(f"warmup={self.warmup} must be less than the run's {total} iterations")
        if iteration < self.warmup:
            return (iteration + 1) / (self.warmup + 1)
        return self.factor((iteration - self.warmup) / (self.end(total) - self.warmup))

    def end(self, total: float) -> float:
        """The iteration at which the schedule is at its end."""
        return total

    @abstractmethod
    def factor(self, progress: float) -> float:
        """Factor at `progress` after warm-up: 0 at its end, 1 or more from the schedule's end on."""


class Constant(Ramp):
    """The number as it is, after a linear warm-up."""

    def factor(self, progress: float) -> float:
        return 1.0


class Falling(Ramp):
    """Falls from 1 to `final`, and stays there.

    Args:
        warmup: iterations in which the number grows linearly to its full size.
        final: factor at the end, 0 or more.
        until: iteration at which `final` is reached, R3GAN's burn-in; None: the end of the run.

    Raises:
        ValueError: if warmup or final is negative, or until is not after the warm-up; when called, if the run ends
            before the warm-up, or neither the run nor the schedule has an end.
    """

    def __init__(self, warmup: int = 0, final: float = 0.0, until: int | None = None) -> None:
        super().__init__(warmup)
        if final < 0:
            raise ValueError(f"final={final} must be 0 or more")
        if until is not None and until <= warmup:
            raise ValueError(f"until={until} must be more than warmup={warmup} iterations, or null: the end of the run")
        self.final = final
        self.until = until

    def __call__(self, iteration: int, total: float) -> float:
        if self.end(total) == math.inf:
            raise ValueError("until=null: a schedule that falls needs an end; set it, or trainer.max_steps")
        return super().__call__(iteration, total)

    def end(self, total: float) -> float:
        return total if self.until is None else self.until


class Linear(Falling):
    """In a straight line. `final + (1 - final) (1 - t / T)`, t at most T"""

    def factor(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 - min(progress, 1))


class Cosine(Falling):
    """Along half a cosine. Loshchilov & Hutter 2017, without restarts. https://arxiv.org/abs/1608.03983

    `final + (1 - final) (1 + cos(pi t / T)) / 2`, t at most T
    """

    def factor(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(progress, 1))) / 2


def check_beta2(schedule: Schedule, optimizer: dict[str, Any], name: str) -> None:
    """Raises ValueError if the optimizer of these settings has no beta2, or it would end outside of [0, 1)."""
    key = "optimizer.beta2_schedule"
    if "betas" not in optimizer:
        raise ValueError(f"{key}: {name} has no beta2; use optimizer=adam, or leave it out")
    beta2 = optimizer["betas"][1]
    end = 1 - schedule.final * (1 - beta2)
    if not 0 <= end < 1:
        raise ValueError(
            f"{key}: with {name}.betas[1]={beta2} beta2 would end at {end:g}, and must lie in [0, 1); "
            f"{key}.final=0.1 takes 0.9 to 0.99"
        )
