"""An error -> one line for people: the key, the value and what to do.

Only names and texts of torch's and Lightning's errors are looked at, neither is imported.
"""

import contextlib
import difflib
import errno
import inspect
import os
import re
import shlex
import shutil
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from gan_lightning.files import PACKAGE, conf_dir, groups, options, shorten

WHOLE_CONFIG = "--help lists the choices, --cfg job prints every key"


ANOTHER_ENDED = "another process of this run has ended; its own error says why"


class UsageError(Exception):
    """A command line that cannot be read. The message is for people."""


class JobsFailed(Exception):
    """A sweep is over, and not all of its jobs have a result. The message is for people."""


# --- A job failed ------------------------------------------------------------------------------------------


def explain(
    error: BaseException, folder: str | None = None, overrides: Sequence[str] = (), place: str = "hydra.run.dir"
) -> str:
    """What went wrong and what to do, in one line.

    Args:
        folder: where the run writes.
        overrides: what the user typed, to name the one that is to blame.
        place: the key that says where the command writes.
    """
    message = _one_line(error)
    if isinstance(error, InstantiationException):
        return _explain_instantiation(error, overrides)
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or message.rpartition(" ")[2]
        return f"{key} is not set; add {key}=…"
    if isinstance(error, OmegaConfBaseException) and (
        missing := re.search(r"is not in struct full_key: (\S+)", message)
    ):
        for override in overrides:
            if re.fullmatch(rf"~{re.escape(missing[1])}(=.*)?", override):
                return f"{override}: it cannot be left out; type a value, {missing[1]}=…"
    if "list index out of range" in message and (
        lists := [override for override in overrides if override.partition("=")[2][:1] == "["]
    ):
        return f"{lists[-1]}: the list has too few values"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return f"{message} {_one_line(error.__cause__ or '')}".strip()
    if isinstance(error, OSError) and error.errno:
        return _explain_os_error(error, folder, overrides, place)
    if type(error).__name__ == "MisconfigurationException":  # Lightning's
        return _explain_misconfiguration(message, overrides)
    if type(error).__name__ == "OutOfMemoryError":  # torch's
        return f"out of GPU memory; a smaller data.batch_size may fit ({message.partition('. ')[0]})"
    if re.search("Connection (closed|reset) by peer|remote process (has )?exited", message):
        return ANOTHER_ENDED
    ours = not is_bug(error)
    if ours and "=" in message:  # names the key
        return message
    cause = _blamed(message, overrides) or ("" if ours else type(error).__name__)
    block, _, rest = message.partition(": ")
    if cause.startswith(f"{block}."):  # optimizer.generator.lr=-1 says more than "optimizer.generator: …"
        message = rest
    return f"{cause}: {message}" if cause else message


def is_bug(error: BaseException) -> bool:
    """False for what is meant for the user: a ValueError or the like that this package itself raised."""
    outer, error = error, _root(error)
    if error is not outer and re.search("unexpected keyword argument|takes no arguments", str(error)):
        return False
    if isinstance(error, HydraException | OmegaConfBaseException | OSError | ImportError):
        return False
    if type(error).__name__ in ("MisconfigurationException", "OutOfMemoryError"):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    ours = bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)
    return not (ours and isinstance(error, ValueError | FloatingPointError))


def explain_type(config_name: str | None, overrides: Sequence[str]) -> str | None:
    """A text where conf/ has a number, which breaks somewhere deep in a library. Only within a Hydra job."""
    choices = [override for override in overrides if override.partition("=")[0] in groups()]
    default, given = (hydra.compose(config_name, list(some)) for some in (choices, overrides))
    for override in overrides:
        key = override.partition("=")[0].lstrip("+")
        number, text = OmegaConf.select(default, key), OmegaConf.select(given, key)
        if isinstance(text, str) and isinstance(number, int | float) and not isinstance(number, bool):
            return f"{override}: {text!r} is not a number; conf/ has {key}={number}"
    return None


def _explain_instantiation(error: InstantiationException, overrides: Sequence[str]) -> str:
    """A constructor that refuses its arguments, or a class that is not there."""
    cause = _root(error)
    found = re.search(r"full_key: (\S+)", str(error))
    target = re.search(r"target '([\w.]+)'", str(error))
    key = found[1] if found else target[1].rpartition(".")[2].lower() if target else "config"
    if target and (refused := re.search(r"unexpected keyword argument '(\w+)'", str(cause))):
        way_out = _leave_out(f"{key}.{refused[1]}", overrides)
        return f"{key}.{refused[1]}: {_explain_argument(target[1], refused[1])}{way_out}"
    if target and found and re.search(r"\w+\(\) takes no arguments", str(cause)):
        return f"{key}: {target[1]} takes no arguments{_leave_out(f'{key}.<name>', overrides)}"
    if isinstance(cause, InstantiationException | ImportError):
        return f"{key}: {_one_line(cause).replace(f' full_key: {key}', '')}"
    line = explain(cause, overrides=overrides)
    if target and (named := re.match(r"(\w+)=", line)) and named[1] in arguments(target[1]):
        return f"{key}.{line}"
    return line if key in line or re.match(r"[\w.]+=", line) else f"{key}: {line}"


def _explain_argument(target: str, argument: str) -> str:
    accepted = arguments(target)
    near = difflib.get_close_matches(argument, accepted, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it takes {_listed(accepted)}"
    return f"{target} has no such argument; {hint}"


def _leave_out(key: str, overrides: Sequence[str]) -> str:
    """How, where an argument stands in conf/, and was not typed."""
    typed = any(override.lstrip("+").startswith(f"{key}=") for override in overrides)
    return "" if typed else f"; ~{key} leaves out what conf/ has"


def arguments(target: str) -> list[str]:
    """Of a class or function; none where it cannot be found."""
    with contextlib.suppress(Exception):
        return list(inspect.signature(hydra.utils.get_object(target)).parameters)
    return []


def _explain_misconfiguration(message: str, overrides: Sequence[str]) -> str:
    if "No supported gpu backend" in message:
        return "trainer.accelerator=gpu: torch finds no GPU on this machine; use trainer=cpu"
    if found := re.search(r"You requested (\w+): (\[.*?\]).*only has: (\[.*?\])", message):
        asked, present = (len(re.findall(r"\d+", devices)) for devices in found.group(2, 3))
        return f"trainer.devices={asked}: this machine has {present} {found[1]}; use trainer.devices={present}"
    blamed = _blamed(message, overrides)
    return f"{blamed}: {message}" if blamed else message


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
        reason = next((f"{shorten(part)} is no folder" for part in files), reason)
    if typed or error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
        data = " (runs) or data.root=… (data)" if place == "hydra.run.dir" and not typed else ""
        return f"{name}: {reason}; choose another folder with {place}=…{data}"
    return f"{name}: {reason}" if error.filename else str(error)


def _typed_for(path: str | Path, overrides: Iterable[str]) -> str | None:
    """The override that names this file, else the nearest folder above it that the command writes to."""
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


def _blamed(message: str, overrides: Iterable[str]) -> str | None:
    """The one override whose value is quoted: optimizer.generator.lr=-1 for "Invalid learning rate: -1".

    A count such as 2 may stand for anything in a message; it has to speak of the key as well.
    """
    quoted = []
    for override in overrides:
        key, _, value = override.partition("=")
        named = any(word in message.lower() for word in key.rpartition(".")[2].split("_") if len(word) > 2)
        if re.search(rf"(?<![\w.-]){re.escape(value)}(?!\w)", message) and (named or not value.isdecimal()):
            quoted.append(override)
    return quoted[0] if len(quoted) == 1 else None


def _root(error: BaseException) -> BaseException:
    """What a constructor raised, inside Hydra's wrapping."""
    while isinstance(error, InstantiationException) and error.__cause__:
        error = error.__cause__
    return error


# --- The config cannot be composed -------------------------------------------------------------------------


def explain_composition(error: Exception, config_name: str, overrides: list[str], folder: Path) -> str:
    """What is wrong with the overrides of a command. `folder` is where its config comes from."""
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
        return _one_line(str(error).partition("Config search path")[0])
    if isinstance(error, ConfigCompositionException):
        if found := re.match(r"Could not (?:override|delete) '([^'@=]+)", str(error)):
            return _explain_key(found[1], config_name, overrides, folder)
        if found := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", str(error)):
            return f"{found[1]}={found[2]}: several values; add -m to run each, or write {found[1]}=[{found[2]}]"
        if found := re.match(r"Could not append to config. An item is already at '(.+?)'", str(error)):
            return f"+{found[1]}: it is in the config already; leave out the +"
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
    """argparse's message; for an unknown flag also what may be meant."""
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
    """For Lightning's own key, which is well known and would be taken."""
    return f"trainer.gradient_clip_val={norm}: Lightning cannot clip for two optimizers; use max_gradient_norm={norm}"


def suggest_keys(word: str, keys: Iterable[str]) -> list[str]:
    """Up to three keys that may be meant: of the same last part, else similar, else similar at their end."""
    keys = list(dict.fromkeys(keys))
    last = {key: key.rpartition(".")[2] for key in keys}
    tail = word.rpartition(".")[2]
    same = [key for key in keys if last[key] == tail]
    same_block = [key for key in same if key.split(".")[0] == word.split(".")[0]]
    similar = difflib.get_close_matches(word, keys, n=1, cutoff=0.75)
    tails = difflib.get_close_matches(tail, set(last.values()), n=1, cutoff=0.75)
    return (same_block or same or similar or [key for key in keys if last[key] in tails])[:3]


def _compose(folder: Path, config_name: str, overrides: list[str]) -> dict[str, Any]:
    """The config without the override that failed; without any where the others fail as well."""
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        for attempt in (overrides, []):
            with contextlib.suppress(Exception):
                return OmegaConf.to_container(hydra.compose(config_name, attempt))  # type: ignore[return-value]
    return {}


def _dotted_keys(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        if key != "_target_":
            yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _dotted_keys(value, f"{prefix}{key}.")


# --- Words -------------------------------------------------------------------------------------------------


def _one_line(message: object) -> str:
    return " ".join(filter(None, map(str.strip, str(message).splitlines())))  # blanks in a path stay


def _listed(names: Iterable[str], most: int = 15) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
