"""Turn an error into one line for people: the key, the value and what to do.

torch and Lightning are not imported: their errors are known by the names of their classes and by their texts.
"""

import contextlib
import difflib
import errno
import inspect
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from gan_lightning.files import conf_dir, groups, options, shorten
from gan_lightning.terminal import one_line

WHOLE_CONFIG = "--help lists the choices, --cfg job prints every key"
REFERENCE = re.compile(r"\$\{(?:oc\.select:)?(\w[\w.]*)(?:,[^}]*)?\}")


class UsageError(Exception):
    """A command line that cannot be read. The message is for people."""


class JobsFailed(Exception):
    """A sweep is over, and not all of its jobs have a result. The message is for people."""


# --- A job failed ------------------------------------------------------------------------------------------


def explain(
    error: BaseException,
    folder: str | None = None,
    overrides: Sequence[str] = (),
    place: str = "hydra.run.dir",
    config: DictConfig | None = None,
) -> str:
    """Say in one line what went wrong and what to do.

    Args:
        folder: where the run writes.
        overrides: what the user typed.
        place: the key that says where the command writes.
        config: of the command, with its references; conf/train.yaml if None.
    """
    message = one_line(error)
    if isinstance(error, InstantiationException):
        return _explain_instantiation(error, overrides, config)
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or message.rpartition(" ")[2]
        return f"{key} is not set; add {key}=…"
    missing = error.full_key if isinstance(error, ConfigKeyError | ConfigAttributeError) else None
    if deleted := next((word for word in overrides if missing and word.partition("=")[0] == f"~{missing}"), None):
        return f"{deleted}: it cannot be left out; type a value, {missing}=…"
    lists = [override for override in overrides if override.partition("=")[2][:1] == "["]
    if isinstance(error, IndexError) and lists:
        return f"{lists[-1]}: the list has too few values"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return f"{message} {one_line(error.__cause__ or '')}".strip()
    if isinstance(error, OSError) and error.errno:
        return _explain_os_error(error, folder, overrides, place)
    if type(error).__name__ == "MisconfigurationException":
        return _explain_misconfiguration(message, overrides)
    if type(error).__name__ == "OutOfMemoryError":
        return f"out of GPU memory; a smaller data.batch_size may fit ({message.partition('. ')[0]})"
    if another_ended(error):
        return "another process of this run has ended; its own error says why"
    if _is_refusal(error):
        cause = one_line(error.__cause__ or "")
        return _blame(cause, overrides) or message
    return f"{type(error).__name__}: {message}" if is_bug(error) else message


def is_bug(error: BaseException) -> bool:
    """Does the user need a traceback? Not if the error says which value was refused, or what the machine lacks."""
    cause = _root(error)
    if cause is not error and _refused_argument(cause) is not None:
        return False
    expected = isinstance(cause, HydraException | OmegaConfBaseException | OSError | ImportError)
    foreign = type(cause).__name__ in ("MisconfigurationException", "OutOfMemoryError")
    return not (expected or foreign or _is_refusal(cause))


def another_ended(error: BaseException) -> bool:
    """Has another process of the run ended first? torch says it in these words only."""
    return bool(re.search("Connection (closed|reset) by peer|remote process (has )?exited", str(error)))


def _is_refusal(error: BaseException) -> bool:
    """Is it about a value that the user can change? A ValueError is, unless a file cannot be decoded."""
    decoding = isinstance(error, UnicodeError | json.JSONDecodeError)
    return isinstance(error, ValueError | FloatingPointError) and not decoding


def _explain_instantiation(error: InstantiationException, overrides: Sequence[str], config: DictConfig | None) -> str:
    """A class that is not there, or refuses its arguments: put the block's key before what it says."""
    cause = _root(error)
    found = re.search(r"full_key: (\S+)", str(error))  # Hydra has them in its text only
    called = re.search(r"target '([\w.]+)'", str(error))
    target = called[1] if called else ""
    block = found[1] if found else target.rpartition(".")[2].lower() or "config"
    key = typed_key(block, config)
    refused = _refused_argument(cause)
    if target and refused:
        accepted = arguments(target)
        near = difflib.get_close_matches(refused, accepted, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it takes {_listed(accepted)}"
        way_out = _leave_out(f"{key}.{refused}", overrides)
        return f"{key}.{refused}: {target} has no such argument; {hint}{way_out}"
    if target and found and refused is not None:
        return f"{key}: {target} takes no arguments{_leave_out(f'{key}.<name>', overrides)}"
    if isinstance(cause, InstantiationException | ImportError):
        return f"{key}: {one_line(cause).replace(f' full_key: {block}', '')}"
    if (named := re.match(r"([\w.]+)[=:]", str(cause))) and named[1].split(".")[0] in arguments(target):
        return typed_key(f"{block}.{named[1]}", config) + one_line(cause)[named.end(1) :]
    if blamed := _blame(one_line(cause), (o for o in overrides if o.lstrip("+").startswith(f"{key}."))):
        return blamed
    line = explain(cause, overrides=overrides, config=config)
    return line if key in line or re.match(r"[\w.]+=", line) else f"{key}: {line}"


def _refused_argument(cause: BaseException) -> str | None:
    """The argument that a class does not have; empty if it has none at all; None if the error is another."""
    if named := re.search(r"unexpected keyword argument '(\w+)'", str(cause)):
        return named[1]
    return "" if re.search(r"\w+\(\) takes no arguments", str(cause)) else None


def _leave_out(key: str, overrides: Sequence[str]) -> str:
    """How to leave out an argument that comes from conf/; empty for one that was typed."""
    typed = any(override.lstrip("+").startswith(f"{key}=") for override in overrides)
    return "" if typed else f"; ~{key} leaves out what conf/ has"


def arguments(target: str) -> list[str]:
    """The names of a class's or function's arguments; empty if it cannot be found."""
    with contextlib.suppress(Exception):
        return list(inspect.signature(hydra.utils.get_object(target)).parameters)
    return []


def _explain_misconfiguration(message: str, overrides: Sequence[str]) -> str:
    if "No supported gpu backend" in message:
        return "trainer.accelerator=gpu: torch finds no GPU on this machine; use trainer=cpu"
    if found := re.search(r"You requested (\w+): (\[.*?\]).*only has: (\[.*?\])", message):
        asked, present = (len(re.findall(r"\d+", devices)) for devices in found.group(2, 3))
        return f"trainer.devices={asked}: this machine has {present} {found[1]}; use trainer.devices={present}"
    return _blame(message, overrides) or message


def _explain_os_error(error: OSError, folder: str | None, overrides: Iterable[str], place: str) -> str:
    path = error.filename2 or error.filename or folder or os.getcwd()  # a copy names its source first
    typed, trains = _typed_for(path, overrides), place == "hydra.run.dir"
    place = typed.partition("=")[0].lstrip("+") if typed else place
    name = shorten(path) if not typed else typed if _is_of(typed, path) else f"{typed}: {shorten(path)}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        existing = next(part for part in _upwards(path) if os.path.exists(part))
        free = f"{shutil.disk_usage(existing).free / 2**20:.0f} MiB free"
        kept = f"; what the run has saved so far stays in {shorten(folder)}" if folder and trains else ""
        return f"{name}: the disk is full ({free}); make room or choose another with {place}=…{kept}"
    reason = (error.strerror or str(error)).lower()
    if os.path.isfile(path) and not os.access(path, os.R_OK):
        return f"{name}: {reason}; make it readable, or name another file"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        files = (part for part in _upwards(path) if os.path.exists(part) and not os.path.isdir(part))
        reason = next((f"{shorten(part)} is not a folder" for part in files), reason)
    if typed or error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
        data = " (runs) or data.root=… (data)" if place == "hydra.run.dir" and not typed else ""
        return f"{name}: {reason}; choose another folder with {place}=…{data}"
    return f"{name}: {reason}" if error.filename else str(error)


def _typed_for(path: str | Path, overrides: Iterable[str]) -> str | None:
    """The override that names this file, or else the nearest folder above it that the command writes to."""
    for part in _upwards(path):
        for override in overrides:
            read = override.lstrip("+").startswith(("ckpt=", "resume=", "runs=")) and part != _upwards(path)[0]
            if _is_of(override, part) and not read:
                return override
    return None


def _is_of(override: str, path: str | Path) -> bool:
    """Does the value of this override name this path?"""
    value = override.partition("=")[2].strip("'\"")
    return bool(value) and os.path.abspath(os.path.expanduser(value)) == os.path.abspath(path)


def _upwards(path: str | Path) -> list[Path]:
    path = Path(os.path.abspath(path))
    return [path, *path.parents]


def _blame(message: str, overrides: Iterable[str]) -> str | None:
    """Put the override before a foreign message that quotes its value: `Invalid learning rate: -0.001`.

    A count such as 2 may mean anything in a message, which then has to speak of the key as well. None if no override
    fits, or several do.
    """
    found = []
    for override in overrides:
        key = override.partition("=")[0].rpartition(".")[2]
        value = _value(override)
        named = any(word in message.lower() for word in key.split("_") if len(word) > 2)
        if re.search(rf"(?<![\w.-]){re.escape(value)}(?!\w)", message) and (named or not value.isdecimal()):
            found.append(override)
    return f"{found[0]}: {message}" if len(found) == 1 else None


def _value(override: str) -> str:
    """The value as Python prints it: -0.001 for lr=-1e-3."""
    try:
        return str(OverridesParser.create().parse_override(override).value())
    except OverrideParseException:
        return override.partition("=")[2]


def _root(error: BaseException) -> BaseException:
    """The error that a constructor raised, without Hydra's wrapping."""
    while isinstance(error, InstantiationException) and error.__cause__:
        error = error.__cause__
    return error


def typed_key(key: str, config: DictConfig | None = None) -> str:
    """The key that a user types: `gan.penalty.weight` -> `penalty.weight`, if `gan` has `penalty: ${penalty}`.

    Args:
        config: conf/train.yaml if None.
    """
    texts = OmegaConf.to_container(_train_yaml() if config is None else config, resolve=False)
    names = key.split(".")
    for length, name in enumerate(names, start=1):
        texts = texts.get(name) if isinstance(texts, dict) else None
        if isinstance(texts, str) and (reference := REFERENCE.fullmatch(texts)):
            return typed_key(".".join([reference[1], *names[length:]]), config)
    return key


@cache
def _train_yaml() -> DictConfig:
    config = OmegaConf.load(conf_dir() / "train.yaml")
    assert isinstance(config, DictConfig)
    return config


# --- The config cannot be composed -------------------------------------------------------------------------


def explain_composition(error: Exception, config_name: str, overrides: list[str], folder: Path) -> str:
    """Say what is wrong with the overrides of a command, whose config comes from `folder`."""
    if isinstance(error, OverrideParseException):
        return explain_syntax(error.override)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return _explain_option(group, option, error.options)
    if isinstance(error, ValueError) and "Config group override" in str(error):  # model=3, model=null
        for group, _, option in (override.partition("=") for override in overrides):
            if group in groups() and option not in options(group):
                return _explain_option(group, option, options(group))
    if isinstance(error, MissingConfigException):
        return one_line(str(error).partition("Config search path")[0])
    if isinstance(error, ConfigCompositionException):
        if found := re.match(r"Could not (?:override|delete) '([^'@=]+)", str(error)):
            return _explain_key(found[1], config_name, overrides, folder)
        if found := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", str(error)):
            return f"{found[1]}={found[2]}: several values; add -m to run each, or write {found[1]}=[{found[2]}]"
        if found := re.match(r"Could not append to config. An item is already at '(.+?)'", str(error)):
            return f"+{found[1]}: the config already has it; leave out the +"
    if "Unknown plugin class" in str(error):
        chosen = next((override for override in overrides if override.startswith("hydra/launcher=")), "hydra/launcher")
        return f"{chosen}: it is not installed; pip install 'gan-lightning[slurm]'"
    return explain(error, overrides=overrides if isinstance(error, OSError) else ())


def explain_syntax(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"cannot read '{override}': settings are written key=value; {WHOLE_CONFIG}"
    if not key:
        return f"cannot read '{override}': the key before = is missing"
    typed = shlex.quote(f"{key}={QuotedString(value, Quote.double).with_quotes()}")
    return f"cannot read '{override}': quote the value, and all of it for the shell: {typed}"


def explain_flag(message: str, flags: Iterable[str], config_name: str) -> str:
    """argparse's message; for an unknown flag with a suggestion."""
    found = re.match(r"unrecognized arguments: (-[^\s=]+)=?(\S*)", message)
    if not found:
        return message
    flag, value = found.groups()
    if near := difflib.get_close_matches(flag, flags, n=1, cutoff=0.75):
        return f"unknown flag {flag}; did you mean {near[0]}?"
    keys = suggest_keys(flag.strip("-").replace("-", "_"), _dotted_keys(_compose(conf_dir(), config_name, [])))
    example = f"key=value, as in {keys[0]}={value or '…'}" if keys else f"key=value; {WHOLE_CONFIG}"
    return f"unknown flag {flag}; settings are written {example}"


def _explain_option(group: str, option: str, available: Sequence[str]) -> str:
    available = [name for name in available if not name.startswith("_")]  # files on which others build
    near = difflib.get_close_matches(option, available, n=1)
    hint = f"did you mean {group}={near[0]}? " if near else ""
    return f"{group}={option}: no such option; {hint}{group} is one of {', '.join(available)}"


def _explain_key(key: str, config_name: str, overrides: list[str], folder: Path) -> str:
    given = next((o for o in overrides if re.split("[@=]", o.lstrip("+~"))[0] == key), key)
    if key == "trainer.gradient_clip_val":
        return explain_clipping(given.partition("=")[2])
    if key in groups():
        return f"{given}: conf/{config_name}.yaml does not choose a {key} by itself; add one with +{given}"
    config = _compose(folder, config_name, [override for override in overrides if override != given])
    parent = key.rpartition(".")[0]
    siblings: Any = config
    for name in parent.split(".") if parent else ():
        siblings = siblings.get(name, {}) if isinstance(siblings, dict) else {}
    if near := suggest_keys(key, [*groups(), *_dotted_keys(config)]):
        hint = f"did you mean {' or '.join(near)}?"
    elif siblings:
        hint = f"{parent or 'the top level'} has {_listed(name for name in siblings if name[0] != '_')}."
    else:
        hint = WHOLE_CONFIG
    if siblings and "_target_" in siblings:
        hint += f" An argument of {siblings['_target_']} that conf/ leaves out takes a plus: +{given}"
    return f"{given}: unknown key; {hint}"


def explain_clipping(norm: object) -> str:
    """The message for Lightning's own key, which many people know and would type."""
    return f"trainer.gradient_clip_val={norm}: Lightning cannot clip for two optimizers; use max_gradient_norm={norm}"


def suggest_keys(word: str, keys: Iterable[str]) -> list[str]:
    """Suggest up to three keys: with the same last part, or else similar, or else with a similar last part."""
    keys = list(dict.fromkeys(keys))
    last = {key: key.rpartition(".")[2] for key in keys}
    tail = word.rpartition(".")[2]
    same = [key for key in keys if last[key] == tail]
    same_block = [key for key in same if key.split(".")[0] == word.split(".")[0]]
    similar = difflib.get_close_matches(word, keys, n=1, cutoff=0.75)
    tails = difflib.get_close_matches(tail, set(last.values()), n=1, cutoff=0.75)
    return (same_block or same or similar or [key for key in keys if last[key] in tails])[:3]


def _compose(folder: Path, config_name: str, overrides: list[str]) -> dict[str, Any]:
    """Compose the config with these overrides, or with none if they fail too."""
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        for attempt in (overrides, []):
            with contextlib.suppress(Exception):
                return OmegaConf.to_container(hydra.compose(config_name, attempt))  # type: ignore[return-value]
    return {}


def _dotted_keys(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key that a user may type, blocks included. Those of `gan` only refer to others."""
    for key, value in config.items():
        if key == "gan":
            continue
        if key != "_target_":
            yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _dotted_keys(value, f"{prefix}{key}.")


def _listed(names: Iterable[str], most: int = 15) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
