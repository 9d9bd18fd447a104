"""A grid as an Optuna sampler."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial


class EveryCombination(BaseSampler):
    """Give trial n the n-th combination; floats need a step.

    Optuna's GridSampler raises an error if trials are asked and told.
    """

    def __init__(self, distributions: dict[str, BaseDistribution]) -> None:
        self.distributions = distributions
        self.combinations = list(itertools.product(*(values(key, d) for key, d in distributions.items())))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        combination = self.combinations[trial.number % len(self.combinations)]
        return dict(zip(self.distributions, combination, strict=True))

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        raise AssertionError("every key is in the relative search space")


def values(key: str, distribution: BaseDistribution) -> list[Any]:
    """All values of a key, in order."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.step is None:
        raise ValueError(f"sweep.space: {key} needs a step or choices for sweep/sampler=grid")
    low, high, step = (Decimal(str(number)) for number in (distribution.low, distribution.high, distribution.step))
    exact = [low + i * step for i in range(int((high - low) / step) + 1)]  # 0.1 + 2 * 0.1 is 0.3, as high is
    return [type(distribution.low)(number) for number in exact]
