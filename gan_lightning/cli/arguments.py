"""A command line -> what Hydra reads, and Lightning, which appends overrides for other ranks."""

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

from gan_lightning.cli.errors import UsageError, explain_flag, explain_syntax
from gan_lightning.files import PACKAGE, conf_dir, groups, options, python
from gan_lightning.runs.typed import as_typed, to_hydra

OUR_LOGGING = "hydra/job_logging=gan_lightning"


def read_argv(config_name: str) -> argparse.Namespace:
    """Parse `sys.argv`; rewrite it for Hydra, and for Lightning, which appends overrides for other ranks."""
    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise UsageError(explain_flag(message, parser._option_string_actions, config_name))

    parser.error = refuse  # type: ignore[assignment, method-assign]
    args = parser.parse_intermixed_args()
    for override in args.overrides:
        if override.startswith("="):
            raise UsageError(explain_syntax(override))
        if re.search("[\udc80-\udcff]", override):  # bytes that Python could not read; YAML and JSON cannot hold them
            raise UsageError(f"{override!a} is not UTF-8; rename it, or set LC_ALL=C.UTF-8")
        if re.fullmatch(r"\+*hydra\.job\.chdir=true", override, re.IGNORECASE):
            raise UsageError(f"{override}: paths are meant from the folder where a command is typed; leave it out")
    flags = [word for word in sys.argv[1:] if word not in args.overrides]
    args.overrides = [to_hydra(word, sweeping=bool(args.multirun)) for word in args.overrides]
    args.overrides = [_none_for(override, config_name) for override in args.overrides]
    if config_name == "train" and not args.help:
        flags += _resume(args)
        _prepare_sweep(args)
    if args.config_path and "://" not in args.config_path:
        # People mean the folder they are in; Hydra takes the one of this package.
        absolute = os.path.abspath(args.config_path)
        path = args.config_path
        flags = [
            word.removesuffix(path) + absolute if word == path or word.endswith(f"={path}") else word for word in flags
        ]
        args.config_path = absolute
        if not args.config_dir:  # A run's saved config has no hydra section; it logs as the run did.
            flags += ["--config-dir", str(conf_dir())]
        if OUR_LOGGING not in args.overrides:
            args.overrides.append(OUR_LOGGING)
    if config_name == "train" and not args.multirun and "hydra.output_subdir=null" not in args.overrides:
        args.overrides.append("++hydra.callbacks.new_run._target_=gan_lightning.cli.new_run.NewRun")
    sys.argv[1:] = flags + args.overrides
    return args


def _none_for(override: str, config_name: str) -> str:
    """`~penalty` stands for `penalty=none`; other overrides are as they are.

    Raises:
        UsageError: where a run cannot be without what is taken away.
    """
    word = re.fullmatch(r"~(\w+)(=.*)?", override)
    settings = (conf_dir() / f"{config_name}.yaml").read_text(encoding="utf-8")
    if not word or not re.search(rf"(?m)^(  - )?{word[1]}:", settings):
        return override
    if word[1] in groups():
        nothing = next((option for option in options(word[1]) if option in ("none", "constant")), None)
        if nothing:
            return f"{word[1]}={nothing}"
        if word[1] in ("experiment", "sweep"):
            return override
        part = f", a part of it with ~{word[1]}.<name>" if word[1] == "callbacks" else ""
        raise UsageError(f"{override}: it cannot be left out{part}; {word[1]} is one of {', '.join(options(word[1]))}")
    if word[1] == "ema":
        return "ema=null"
    raise UsageError(f"{override}: it cannot be left out; type a value, {word[1]}=…")


def _resume(args: argparse.Namespace) -> list[str]:
    """Where `resume=` is among the overrides, make `args` start from the config of that run; the flags for it.

    Raises:
        UsageError: if that run cannot be resumed so.
    """
    if not any(override.startswith("resume=") for override in args.overrides):  # ++resume=: it is rewritten already
        return []
    if args.config_path or args.multirun:
        flag = "--config-path" if args.config_path else "-m"
        raise UsageError(f"resume= goes on with one run and its own config; leave out {flag}")
    from gan_lightning.runs.resume import resumed_overrides

    try:
        place = resumed_overrides(args.overrides)
    except OverrideParseException:  # Hydra meets it as well, and it is explained then
        return []
    except ValueError as error:
        raise UsageError(str(error)) from error
    if place is None:
        return []
    folder, args.overrides = place
    args.config_path, args.config_name = str(folder), "config"
    return ["--config-path", args.config_path, "--config-name", args.config_name]


def _prepare_sweep(args: argparse.Namespace) -> None:
    """A grid, unless -m comes with another sweep; sweeps bring Hydra plugins of their own.

    Raises:
        UsageError: for settings of a sweep without -m.
    """
    sweeps = [override for override in args.overrides if re.match(r"\+*sweep[=./]", override)]
    if args.multirun:
        _register_plugins()
        if not any(override.startswith("sweep=") for override in sweeps):
            args.overrides.insert(0, "sweep=grid")
    elif sweeps and not args.cfg:
        typed = [as_typed(override) for override in sweeps]
        raise UsageError(f"{typed[0]}: a sweep takes -m; {python()} -m gan_lightning -m {shlex.join(typed)}")


def _register_plugins() -> None:
    """Make our launcher and sweeper known to Hydra, which takes them from the package hydra_plugins only."""
    folder = str(PACKAGE / "sweeps" / "plugins")
    for paths in sys.path, (known := os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        if folder not in paths:
            paths.append(folder)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, known))  # for jobs that read what this process has loaded
    # conf/hydra/launcher/submitit_slurm.yaml has the name of the plugin's own form, as it must.
    warnings.filterwarnings("ignore", "(?s).*is validated against ConfigStore schema with the same name")
    ours = import_module("hydra_plugins.gan_lightning")
    Plugins.instance().register(ours.ProcessLauncher)
    Plugins.instance().register(ours.Sweeper)
