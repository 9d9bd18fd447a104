"""The search space of a study: from config keys and their ranges to the overrides of a trial.

    space:
      optimizer.generator.lr: {low: 1e-5, high: 1e-3, log: true}     # float
      n_critic: {low: 1, high: 5, step: 1}                           # whole numbers, if low, high and step are
      model.generator.hidden: {choices: ["[256, 512]", "[512, 512]"]}

On the command line in Hydra's words: `n_critic=1,5`, `choice(...)`, `range(1,6)`, `interval(0.1,1)`, and
`tag(log, interval(1e-5, 1e-3))`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, QuotedString, RangeSweep

from gan_lightning.runs.typed import quote, to_hydra
from gan_lightning.sweeps.overrides import parse

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

Space = dict[str, dict[str, Any]]
RANGE = {"low", "high", "log", "step"}
WORDS = re.compile("null|true|false|yes|no|on|off|inf|nan", re.IGNORECASE)  # not read as text without quotes


def split(overrides: Sequence[str]) -> tuple[list[str], Space]:
    """Divide overrides into those with one value, and a space of those with several."""
    fixed: list[str] = []
    space: Space = {}
    for word, override in zip(overrides, parse(overrides), strict=True):
        if override.is_sweep_override():
            space[override.key_or_group] = _typed(override)
        else:
            fixed.append(word)
    return fixed, space


def _typed(override: Override) -> dict[str, Any]:
    sweep: Any = override.value()
    log = {"log": True} if "log" in getattr(sweep, "tags", ()) else {}
    if isinstance(sweep, ChoiceSweep):
        return {"choices": [_text(value) for value in override.sweep_iterator()]}
    if isinstance(sweep, IntervalSweep):
        return {"low": sweep.start, "high": sweep.end} | log
    assert isinstance(sweep, RangeSweep)
    values = list(sweep.range())
    return {"low": values[0], "high": values[-1], **(log or {"step": sweep.step})}


def _text(value: Any) -> Any:
    """Optuna's choices are numbers and text; a list becomes the text that is typed for it."""
    value = _plain(value)
    return as_override(value) if isinstance(value, list | dict) else value


def _plain(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


def as_override(value: Any) -> str:
    """Write a value in the grammar of Hydra's command line; text gets quotes only if it needs them."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{as_override(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(as_override, value)) + "]"
    if not isinstance(value, str):
        return repr(value) if _is_number(value) else json.dumps(value)
    return value if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", value) and not WORDS.fullmatch(value) else quote(value)


def distribution(key: str, given: dict[str, Any]) -> BaseDistribution:
    """Optuna's distribution of one key's values; ValueError if not written as in the module's docstring."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(given, dict):
        given = {"": given}
    if set(given) == {"choices"} and given["choices"]:
        return CategoricalDistribution([_text(choice) for choice in given["choices"]])
    if {"low", "high"} <= set(given) <= RANGE and all(_is_number(given[name]) for name in set(given) - {"log"}):
        whole = all(isinstance(given[name], int) for name in ("low", "high"))
        kind = IntDistribution if whole else FloatDistribution
        try:
            return kind(**given)
        except ValueError as error:
            raise ValueError(f"sweep.space: {key}={given}: {error}") from error
    raise ValueError(
        f"sweep.space: {key}={given} is not understood; write {{low: 1e-5, high: 1e-3, log: true}}, "
        "{low: 1, high: 5, step: 1} or {choices: [a, b]}"
    )


def suggest(trial: Trial, key: str, values: BaseDistribution) -> Any:
    """The value that Optuna proposes for a key; a trial that was begun before keeps its value."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(values, CategoricalDistribution):
        return trial.suggest_categorical(key, values.choices)
    if isinstance(values, IntDistribution):
        return trial.suggest_int(key, values.low, values.high, step=values.step, log=values.log)
    assert isinstance(values, FloatDistribution)
    return trial.suggest_float(key, values.low, values.high, step=values.step, log=values.log)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def override(key: str, value: Any) -> str:
    """Write `optimizer.generator.lr=0.00031`. The text that `distribution` made of a list becomes the list again."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        return to_hydra(f"{key}={value}")
    return f"{key}={as_override(value)}"


def first_values(distributions: dict[str, BaseDistribution]) -> list[str]:
    """Overrides with the first value of each key, to compose a config once before the study starts."""
    from optuna.distributions import CategoricalDistribution

    words = []
    for key, values in distributions.items():
        first = values.choices[0] if isinstance(values, CategoricalDistribution) else values.low  # type: ignore[attr-defined]
        words.append(override(key, first))
    return words
