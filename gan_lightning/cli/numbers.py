"""Whole numbers where whole numbers belong, said before anything is built."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import hydra
from omegaconf import DictConfig, OmegaConf

from gan_lightning.files import conf_dir


def check_whole_numbers(config: DictConfig, config_name: str) -> None:
    """Refuse a fraction, or a whole number written as one, where conf/<config_name>.yaml or a class takes an int.

    Raises:
        ValueError: for the first one; the message names its key.
    """
    for key, value in _whole(config, config_name):
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float | bool):
                hint = f"; write {number:.0f}" if not isinstance(number, bool) and number.is_integer() else ""
                raise ValueError(f"{key}={str(value).replace(' ', '')} must be a whole number{hint}")


def _whole(config: DictConfig, config_name: str) -> Iterator[tuple[str, Any]]:
    """Keys that take whole numbers, and their values, the top level first: others may refer to it."""
    for key, default in OmegaConf.load(conf_dir() / f"{config_name}.yaml").items():
        if isinstance(default, int) and not isinstance(default, bool):
            yield str(key), config.get(key)
    yield from _of_block(config, "")


def _of_block(block: DictConfig, path: str) -> Iterator[tuple[str, Any]]:
    hints: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # whoever builds it says what is wrong with it
        target: Any = hydra.utils.get_object(block["_target_"])
        hints = get_type_hints(target.__init__ if isinstance(target, type) else target)  # type: ignore[misc]
    texts: Any = OmegaConf.to_container(block)
    for key in map(str, block):
        with contextlib.suppress(Exception):  # a value that is not set, or refers to none
            value = block[key]
            reference = re.fullmatch(r"\$\{(?:oc\.select:)?([\w.]+)(?:,[^}]*)?\}", str(texts[key]))
            if isinstance(value, DictConfig):
                yield from _of_block(value, f"{path}{key}.")
            elif _is_whole(hints.get(key)):
                name = reference[1] if reference else f"{path}{key}"
                yield name, OmegaConf.to_container(value) if OmegaConf.is_list(value) else value


def _is_whole(hint: Any) -> bool:
    """Is it an int, or int | None, or a sequence of them?"""
    if get_origin(hint) is not None:
        return all(_is_whole(one) or one in (type(None), Ellipsis) for one in get_args(hint))
    return hint is int
