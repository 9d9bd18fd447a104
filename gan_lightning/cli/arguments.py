"""Rewrite a command line for Hydra, and for Lightning, which adds to it to start the other ranks."""

import argparse
import os
import re
import shlex
import sys
import warnings
from importlib import import_module

from hydra._internal.utils import get_args_parser
from hydra.core.plugins import Plugins
from hydra.errors import OverrideParseException

from gan_lightning.cli.errors import UsageError, explain_flag, explain_syntax, typed_key
from gan_lightning.files import PACKAGE, conf_dir, groups, options, python
from gan_lightning.runs.typed import as_typed, to_hydra

OUR_LOGGING = "hydra/job_logging=gan_lightning"


def read_argv(config_name: str) -> argparse.Namespace:
    """Parse `sys.argv`, and put in its place what Hydra is to read. Raise UsageError if it cannot be read."""
    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise UsageError(explain_flag(message, parser._option_string_actions, config_name))

    parser.error = refuse  # type: ignore[assignment, method-assign]
    args = parser.parse_intermixed_args()
    flags = [word for word in sys.argv[1:] if word not in args.overrides]
    for override in args.overrides:
        _check(override)
    args.overrides = [to_hydra(word, sweeping=bool(args.multirun)) for word in args.overrides]
    if config_name == "train" and not args.help:
        flags += _resume(args)
        _prepare_sweep(args)
    args.overrides = [_none_for(override, config_name) for override in args.overrides]
    if args.config_path and "://" not in args.config_path:
        flags = _use_folder(args, flags)
    if config_name == "train" and not args.multirun and "hydra.output_subdir=null" not in args.overrides:
        args.overrides.append("++hydra.callbacks.new_run._target_=gan_lightning.cli.new_run.NewRun")
    sys.argv[1:] = flags + args.overrides
    return args


def _check(override: str) -> None:
    """Raise UsageError for an override as typed that Hydra would misread."""
    if override.startswith("="):
        raise UsageError(explain_syntax(override))
    if re.search("[\udc80-\udcff]", override):  # bytes that Python could not read; YAML and JSON cannot hold them
        raise UsageError(f"{override!a} is not UTF-8; rename it, or set LC_ALL=C.UTF-8")
    if re.fullmatch(r"\+*hydra\.job\.chdir=true", override, re.IGNORECASE):
        raise UsageError(f"{override}: paths start at the folder where you type the command; leave it out")
    if found := re.fullmatch(r"[+~]*(gan(?:\.[\w.]+)?)(=.*)?", override):
        key = typed_key(found[1])
        way_out = "type the key that it refers to" if key == found[1] else f"type {key}{found[2] or '=…'}"
        raise UsageError(f"{override}: the block gan only refers to other keys; {way_out}")


def _use_folder(args: argparse.Namespace, flags: list[str]) -> list[str]:
    """The flags for --config-path: Hydra starts at this package's folder, people mean the one that they are in."""
    path, absolute = args.config_path, os.path.abspath(args.config_path)
    flags = [
        word.removesuffix(path) + absolute if word == path or word.endswith(f"={path}") else word for word in flags
    ]
    args.config_path = absolute
    if not args.config_dir:  # A run's saved config has no hydra section; it logs as the run did.
        flags += ["--config-dir", str(conf_dir())]
    if OUR_LOGGING not in args.overrides:
        args.overrides.append(OUR_LOGGING)
    return flags


def _none_for(override: str, config_name: str) -> str:
    """`~penalty` stands for `penalty=none`; other overrides stay as they are."""
    word = re.fullmatch(r"~(\w+)(=.*)?", override)
    settings = (conf_dir() / f"{config_name}.yaml").read_text(encoding="utf-8")
    if not word or not re.search(rf"(?m)^(  - )?{word[1]}:", settings):
        return override
    key = word[1]
    if key == "ema":
        return "ema=null"
    if key not in groups():
        raise UsageError(f"{override}: it cannot be left out; type a value, {key}=…")
    if nothing := [option for option in options(key) if option in ("none", "constant")]:
        return f"{key}={nothing[0]}"
    if key in ("experiment", "sweep"):  # conf/ chooses none
        return override
    part = f" as a whole, but ~{key}.<name> leaves out a part" if key in ("callbacks", "control") else ""
    raise UsageError(f"{override}: it cannot be left out{part}; {key} is one of {', '.join(options(key))}")


def _resume(args: argparse.Namespace) -> list[str]:
    """If `resume=` is typed, make `args` start from the config of that run; returns the flags to add."""
    if not any(override.startswith("resume=") for override in args.overrides):  # ++resume=: it is rewritten already
        return []
    if args.config_path or args.multirun:
        flag = "--config-path" if args.config_path else "-m"
        raise UsageError(f"resume= goes on with one run and its own config; leave out {flag}")
    from gan_lightning.runs.resume import resumed_overrides

    try:
        place = resumed_overrides(args.overrides)
    except OverrideParseException:  # Hydra meets it too, and then it is explained
        return []
    except ValueError as error:
        raise UsageError(str(error)) from error
    if place is None:
        return []
    folder, args.overrides = place
    args.config_path, args.config_name = str(folder), "config"
    return ["--config-path", args.config_path, "--config-name", args.config_name]


def _prepare_sweep(args: argparse.Namespace) -> None:
    """With -m, register our Hydra plugins, and choose the grid unless another sweep is typed."""
    sweeps = [override for override in args.overrides if re.match(r"\+*sweep[=./]", override)]
    if args.multirun:
        _register_plugins()
        if not any(override.startswith("sweep=") for override in sweeps):
            args.overrides.insert(0, "sweep=grid")
    elif sweeps and not args.cfg:
        typed = [as_typed(override) for override in sweeps]
        raise UsageError(f"{typed[0]}: a sweep takes -m; {python()} -m gan_lightning -m {shlex.join(typed)}")


def _register_plugins() -> None:
    """Register our launcher and sweeper with Hydra, which takes them only from the package hydra_plugins."""
    folder = str(PACKAGE / "sweeps" / "plugins")
    for paths in sys.path, (known := os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if folder not in paths:
            paths.append(folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, known))  # for jobs that unpickle our plugins
    # conf/hydra/launcher/submitit_slurm.yaml must have the name of the plugin's own schema.
    warnings.filterwarnings("ignore", "(?s).*is validated against ConfigStore schema with the same name")
    ours = import_module("hydra_plugins.gan_lightning")
    Plugins.instance().register(ours.ProcessLauncher)
    Plugins.instance().register(ours.Sweeper)
