"""Check the values of a config before anything is built.

Importing this module imports neither torch nor Lightning.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_type_hints

import hydra
from omegaconf import DictConfig, OmegaConf

from gan_lightning.cli.errors import explain_clipping, typed_key
from gan_lightning.files import conf_dir, shorten
from gan_lightning.runs.folder import choices, overrides
from gan_lightning.runs.resume import SCHEDULES

log = logging.getLogger(__name__)

# --- A table of rules for the keys of a command --------------------------------------------------------------


class Rule(NamedTuple):
    """What a value must be: as a test, and in words."""

    holds: Callable[[Any], bool]
    words: str


def whole(least: int, null: str | None = None) -> Rule:
    """A whole number. `null` says what null stands for; without it null is refused."""
    words = f"a whole number, {least} or more" + (f", or null for {null}" if null else "")
    return Rule(lambda value: (value is None and bool(null)) or (type(value) is int and value >= least), words)


def one_of(*choices: str | bool | None) -> Rule:
    words = [str(choice).lower() for choice in choices if choice is not None]
    return Rule(lambda value: value in choices, f"{', '.join(words[:-1])} or {words[-1]}")


def check_values(config: DictConfig, rules: Mapping[str, Rule], block: str = "") -> None:
    """Raise ValueError for the first value of a command, or of its block `block`, that breaks its rule."""
    for key, rule in rules.items():
        if not rule.holds(value := config[key]):
            raise ValueError(f"{block and f'{block}.'}{key}={value} must be {rule.words}")


# --- Numbers, wherever conf/ or the signature of a class asks for one ----------------------------------------


def check_numbers(config: DictConfig, config_name: str) -> None:
    """Refuse a fraction where a whole number belongs, and text where a number does.

    A key takes what its value in conf/<config_name>.yaml is, or what the class that it is an argument of asks for.
    """
    for key, value, kind in _numbers(config, config_name):
        for number in value if isinstance(value, list) else [value]:
            allowed = type(number) is int or (kind is float and type(number) is float)
            if isinstance(number, int | float | str) and not allowed:
                whole_number = type(number) is float and number.is_integer()
                hint = f"; write {number:.0f}" if whole_number else ""
                must_be = "a whole number" if kind is int else "a number"
                raise ValueError(f"{typed_key(key, config)}={str(value).replace(' ', '')} must be {must_be}{hint}")


def _numbers(config: DictConfig, config_name: str) -> Iterator[tuple[str, Any, type]]:
    """Keys that take numbers, their values, and int or float. The top level comes first: others may refer to it."""
    for key, default in OmegaConf.load(conf_dir() / f"{config_name}.yaml").items():
        if type(default) in (int, float):
            yield str(key), config.get(key), type(default)
    yield from _numbers_of_block(config, "")


def _numbers_of_block(block: DictConfig, path: str) -> Iterator[tuple[str, Any, type]]:
    hints: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # whoever builds it says what is wrong with it
        target: Any = hydra.utils.get_object(block["_target_"])
        hints = get_type_hints(target.__init__ if isinstance(target, type) else target)  # type: ignore[misc]
    for key in map(str, block):
        with contextlib.suppress(Exception):  # a value that is not set, or refers to none
            value = block[key]
            if isinstance(value, DictConfig):
                yield from _numbers_of_block(value, f"{path}{key}.")
            elif kind := _kind(hints.get(key)):
                plain = OmegaConf.to_container(value) if OmegaConf.is_list(value) else value
                yield f"{path}{key}", plain, kind


def _kind(hint: Any) -> type | None:
    """int or float, if the hint is one, or an optional or a sequence of it; None if it allows text or a flag."""
    parts = _parts(hint)
    if parts & {str, bool, object, Any} or not parts & {int, float}:
        return None
    return float if float in parts else int


def _parts(hint: Any) -> set[Any]:
    """`tuple[float | None, ...]` -> float, None, ..."""
    inner = get_args(hint)
    return set().union(*map(_parts, inner)) if inner else {hint}


# --- A training ----------------------------------------------------------------------------------------------

NOT_OF_THE_TRAINER = {  # Lightning's own arguments that a run decides by another key
    "callbacks": "use +callbacks.<name>={_target_: …}",
    "logger": "use logger=none, or +logger.<name>={_target_: …}",
    "enable_checkpointing": "use ~callbacks.checkpoint for a run without checkpoints",
    "plugins": "use trainer.precision or trainer.strategy",
    "overfit_batches": "every epoch has other batches; put the few images into a folder: data=image_folder",
    "accumulate_grad_batches": "use a larger data.batch_size",
}
CAN_BE_NONE = ("conditioning", "penalty", "constraint", "augment")


def check(config: DictConfig) -> None:
    """Raise ValueError, with the key, for a setting of a training that cannot be used."""
    check_values(config, {"seed": whole(0), "latent_dim": whole(1)})
    _check_schedules(config)
    shape = config.data.get("image_shape", [1, 28, 28])
    if isinstance(shape, int | str) or len(shape) != 3:
        raise ValueError(f"data.image_shape={shape} must be channels, height, width, such as [1,28,28]")
    for group in CAN_BE_NONE:
        part = config.get(group)
        if part and "_target_" not in part:
            raise ValueError(f"{group}={{{', '.join(part)}: …}}: {group}=none has no settings; choose a {group}")
    _check_trainer(config.trainer)
    if config.cuda_graph and not config.control.get("cuda_graph"):
        raise ValueError("cuda_graph=true has no effect without control.cuda_graph; put that back, or cuda_graph=false")
    if not config.metrics:
        _tell_unscored()


def _check_schedules(config: DictConfig) -> None:
    for key in SCHEDULES:
        if isinstance(name := OmegaConf.select(config, key), str):
            raise ValueError(
                f"{key}={name}: the option of a group inside of another is typed as +schedule@{key}={name}"
            )


def _check_trainer(trainer: DictConfig) -> None:
    if "16" in str(trainer.precision).replace("bf16", ""):
        raise ValueError(
            f"trainer.precision={trainer.precision} is not supported: its loss scaling knows one optimizer; "
            "use bf16-mixed or 32-true"
        )
    for key in "max_epochs", "max_steps", "limit_train_batches":
        if trainer.get(key) == 0:
            raise ValueError(f"trainer.{key}={trainer[key]}: there is nothing to train; leave it out, or try 1")
    limit = trainer.get("max_time")  # DD:HH:MM:SS, or a block such as {hours: 1}
    numbers = limit.values() if isinstance(limit, DictConfig) else re.findall(r"\d+", str(limit or ""))
    if numbers and all(float(number) <= 0 for number in numbers):
        raise ValueError(f"trainer.max_time={limit}: there is no time to train; leave it out")
    every = trainer.check_val_every_n_epoch
    if every is not None and not (isinstance(every, int) and every >= 1):
        raise ValueError(
            f"trainer.check_val_every_n_epoch={every} must be 1 or more; metrics=none trains without scores"
        )
    if trainer.get("gradient_clip_val"):
        raise ValueError(explain_clipping(trainer.gradient_clip_val))
    for key, instead in NOT_OF_THE_TRAINER.items():
        if key in trainer:
            raise ValueError(f"trainer.{key} has no effect; {instead}")


def _tell_unscored() -> None:
    """Say why a run has no scores, if nobody has typed that."""
    name = choices().get("data")
    if name and not any(word.startswith("metrics=") for word in overrides()):
        log.info(
            "no scores: data=%s or the recipe chooses metrics=none; metrics=judge asks the judge, of which %s.yaml "
            "says more", name, shorten(conf_dir() / "data" / name),
        )  # fmt: skip
