"""The way into every command: compose the config, run the job, say in one line what went wrong.

    @command("train")               # conf/train.yaml
    def main(config): ...

The line goes to the terminal, the traceback to the run's train.log; `HYDRA_FULL_ERROR=1` shows everything.
Nothing here imports torch or Lightning, so that `--help` and a mistyped key answer at once.
"""

import argparse
import contextlib
import functools
import logging
import os
import re
import shlex
import string
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from gan_lightning.errors import (
    ANOTHER_ENDED,
    JobsFailed,
    explain,
    explain_composition,
    explain_flag,
    explain_syntax,
    explain_type,
    is_bug,
)
from gan_lightning.files import BYTES
from gan_lightning.names import as_typed, to_hydra
from gan_lightning.numbers import check_whole_numbers
from gan_lightning.paths import PACKAGE, conf_dir, groups, options, python, shorten
from gan_lightning.runs import ERROR, check_new, run_state, typed_overrides
from gan_lightning.terminal import Outlet, open_outlets, use_utf_8

log = logging.getLogger(__name__)

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes
FULL_ERROR = "HYDRA_FULL_ERROR"
DEPRECATIONS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
PARENT = os.getppid()  # asked for by ranks above 0, which are started from anew
# What launchers tell the processes that they start, and from which number on a variable says that there are others.
LAUNCHER = {"WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0, "NODE_RANK": 1, "SLURM_STEP_NUM_TASKS": 2, "SLURM_PROCID": 1}
LEFT_OVER = {
    **dict.fromkeys(("RANK", "LOCAL_RANK"), ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")),
    **dict.fromkeys(("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"), ("SLURM_JOB_ID", "SLURM_STEP_ID")),
}
OUR_LOGGING = "hydra/job_logging=gan_lightning"


class UsageError(Exception):
    """A command line that cannot be read. The message is for people."""


def command(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[..., None]]:
    """Make `main(config)` a command that reads conf/<config_name>.yaml and `sys.argv`.

    Called with a config, the function runs as it stands, errors included.
    """

    def decorate(main: Callable[[DictConfig], None]) -> Callable[..., None]:
        @functools.wraps(main)
        def run(config: DictConfig | None = None) -> None:
            if config is not None:
                main(config)
                return
            use_utf_8()
            outlet = open_outlets()
            exit_code = _run(main, config_name)
            if outlet and not exit_code:
                exit_code = _check_printed(outlet)
            if exit_code:
                sys.exit(exit_code)

        return run

    return decorate


def _run(main: Callable[[DictConfig], None], config_name: str) -> int:
    """Run one job, or with -m several, and return the exit code of the process."""
    OmegaConf.register_new_resolver("run_name", run_name, replace=True, use_cache=True)
    if not os.environ.get("GAN_LIGHTNING_DATA"):  # empty is as good as not set
        os.environ.pop("GAN_LIGHTNING_DATA", None)
    start = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)
    debugging = os.environ.get(FULL_ERROR) == "1"
    exit_code = 0

    # An error stops here, so that the next job of a -m run gets its turn.
    @functools.wraps(main)
    def job(config: DictConfig) -> None:
        nonlocal exit_code
        started = time.time()
        del os.environ[FULL_ERROR]  # it is ours: processes that the job starts must not take it for the user's
        _log_warnings()
        if rank() > 0:
            threading.Thread(target=_end_with_parent, daemon=True).start()
        try:
            check_whole_numbers(config, config_name)
            main(config)
        except Exception as error:
            exit_code = FAILED
            _report(error, config_name, started)
        finally:
            os.environ[FULL_ERROR] = "1"

    try:
        _check_launcher()
        args = _read_argv(config_name)
    except UsageError as error:
        _print(f"error: {error}")
        return USAGE
    if args.help:
        print(help_text(config_name))
        return 0
    if debugging:
        start(main)()
        return 0
    try:
        os.environ[FULL_ERROR] = "1"  # Hydra raises, instead of printing and exiting
        start(job)()
    except KeyboardInterrupt:
        _print("interrupted")
        return INTERRUPTED
    except JobsFailed as error:
        _print(f"error: {error}")
        return FAILED
    except Exception as error:
        folder, name = Path(args.config_path or conf_dir()), args.config_name or config_name
        _print(f"error: {explain_composition(error, name, args.overrides, folder)}")
        return USAGE if isinstance(error, HydraException | ValueError) else FAILED
    return exit_code


# --- Command line ------------------------------------------------------------------------------------------


def _read_argv(config_name: str) -> argparse.Namespace:
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
        args.overrides.append(f"++hydra.callbacks.new_run._target_={NewRun.__module__}.NewRun")
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
    from gan_lightning.resume import resumed_overrides

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


def help_text(config_name: str) -> str:
    """conf/hydra/help/<command>.yaml, filled in; without one the command's YAML, whose comments say enough.

    Hydra's own --help takes longer with every option there is.
    """
    text = (conf_dir() / f"{config_name}.yaml").read_text(encoding="utf-8")
    keys = re.sub(r"(?ms)^(defaults|hydra):.*?(?=^\w|\Z)", "", text)  # with their comments
    template = conf_dir() / "hydra" / "help" / f"{config_name}.yaml"
    if not template.exists():
        return keys.strip()
    return string.Template(OmegaConf.load(template).template).substitute(
        APP_CONFIG_GROUPS=_describe_options(text), CONFIG=re.sub(r"(?m)^#.*\n", "", keys).strip()
    )


def _describe_options(text: str) -> str:
    """Every option with the first comment of its file; a star marks what the config with this text takes."""
    defaults: dict[str, str] = {}
    for entry in OmegaConf.to_container(OmegaConf.create(text))["defaults"]:  # type: ignore[call-overload, index]
        defaults.update(entry if isinstance(entry, dict) else {})
    lines = []
    for group in groups():
        lines.append(group)
        for option in options(group):
            content = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8")
            comment = re.search(r"^# (?!@package)(.*)", content, re.MULTILINE)
            star = "*" if defaults.get(group) == option else " "
            about = textwrap.shorten(comment[1], 88, placeholder=" …") if comment else ""
            lines.append(f"  {star} {option:<15} {about}".rstrip())
    return "\n".join(lines)


# --- Terminal, log file, processes -------------------------------------------------------------------------


def _report(error: Exception, config_name: str, started: float) -> None:
    """One line to the terminal, of a training to error.txt in its folder as well; the traceback to the log file.

    Args:
        config_name: of the command.
        started: when it was, in seconds since the epoch.
    """
    job, number = HydraConfig.get(), rank()
    folder, overrides = job.runtime.output_dir, list(job.overrides.task)
    resumed = config_name == "train" and job.output_subdir is None  # started from the config that is saved there
    if resumed:
        with contextlib.suppress(ValueError):  # a broken file there has been named, or is not what failed
            overrides += [word for word in typed_overrides(Path(folder)) if word not in overrides]
    line = explain(error, folder, overrides, place="hydra.run.dir" if config_name == "train" else "out")
    taken_away = any(word.lstrip("~") == getattr(error, "full_key", None) for word in overrides)
    if resumed and isinstance(error, ConfigKeyError | ConfigAttributeError) and not taken_away:
        line = f"{shorten(Path(folder) / '.hydra' / 'config.yaml')} lacks {error.full_key}, which every run has"
    log.debug("rank %d failed: %s", number, line, exc_info=error)  # the console starts at INFO
    if is_bug(error):
        files = [h.baseFilename for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
        where = f"in {shorten(files[0])}" if files else f"with {FULL_ERROR}=1"
        line = explain_type(config_name, overrides) or f"{line} (traceback {where})"
    if config_name == "train":
        line = _keep(Path(folder) / ERROR, line, started)
    if job.mode == RunMode.MULTIRUN:
        line = f"{shorten(folder)}: {line}"
    if number == 0:
        _print(f"error: {line}")
    elif not _parent_ends(within=10):  # otherwise rank 0 failed as well, and has said why
        _print(f"error: rank {number}: {line}")


def _keep(file: Path, line: str, started: float) -> str:
    """Write down what a run has failed of, and return it; of several processes the first one to fail knows best."""
    state = run_state(file.parent)
    if state.is_final or (state.name == "running" and rank() == 0):
        return line  # a refused resume=, or a folder that another training is at work in: that run has not failed
    patience = time.monotonic() + (3 if line.startswith(ANOTHER_ENDED) else 0)  # seconds for the other one to say why
    with contextlib.suppress(OSError):  # a full disk has been reported already
        while True:
            if file.exists() and file.stat().st_mtime > started:
                return line if rank() else file.read_text(encoding="utf-8", errors=BYTES).strip()
            if time.monotonic() >= patience:
                break
            time.sleep(0.1)
        told = f"rank {rank()}: {line}\n" if rank() else f"{line}\n"
        file.write_text(told, encoding="utf-8", errors=BYTES)
    return line


def _log_warnings() -> None:
    """A warning is one line on the terminal and in train.log; a library's deprecation in train.log only."""

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        level = logging.DEBUG if issubclass(category, DEPRECATIONS) else logging.WARNING
        text = " ".join(str(message).split())
        logging.getLogger("py.warnings").log(level, "%s: %s (%s:%d)", category.__name__, text, filename, lineno)

    warnings.showwarning = show
    logging.raiseExceptions = False  # a full disk must not print a traceback for every line logged


class TerminalHandler(logging.StreamHandler):
    """Writes to what sys.stdout is at the time, which is not the same while a progress bar is shown.

    Used by conf/hydra/job_logging.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout


class RankZero(logging.Filter):
    """Lets the first of a run's processes speak, and no other. Used by conf/hydra/job_logging."""

    def filter(self, record: logging.LogRecord) -> bool:
        return rank() == 0


class NewRun(Callback):
    """Ends the command before it writes anything where a new run would be mixed with one that is in its folder.

    A run that is resumed, a job of a sweep and Lightning's further processes come with hydra.output_subdir=null.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if rank() > 0:  # the first process has begun the run
            return
        HydraConfig.instance().set_config(config)  # as Hydra does next: the folder's name may refer to it
        try:
            check_new(Path(OmegaConf.select(config, "hydra.run.dir")))
        except (OSError, OmegaConfBaseException):
            return  # Hydra meets it next, and it is explained then
        except ValueError as error:
            _print(f"error: {error}")
            sys.exit(USAGE)  # Hydra makes a warning of any exception of a callback


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show that something takes its time, on a terminal only."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_interactive:
        yield
        return
    with console.status(Text(what)):  # not markup: [1] is no style
        yield


def run_name() -> str:
    """The name of a run's folder: the time, or under torchrun and srun what all processes of the run agree on."""
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _from_rank_zero(now)
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")  # a job that is queued again counts its steps anew
        return f"slurm_{os.environ['SLURM_JOB_ID']}_{os.environ['SLURM_STEP_ID']}_{restarts}"
    return now


def _from_rank_zero(text: str) -> str:
    """What the first process of a torchrun has to say, through the store that torchrun keeps for its processes."""
    from torch.distributed import TCPStore

    key = f"gan_lightning/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=timedelta(minutes=5))
    if rank() == 0:
        store.set(key, text)
    return store.get(key).decode()


def _check_launcher() -> None:
    """Take no notice of empty variables of a launcher.

    Raises:
        UsageError: for those that are no numbers, or left over from a launcher that has not started this process.
    """
    for name in LAUNCHER:
        if (value := os.environ.get(name)) == "":
            del os.environ[name]
        elif value and not value.isdecimal():
            raise UsageError(f"{name}={value} in the environment is no number; unset {name}")
    for name, needed in LEFT_OVER.items():
        missing = [other for other in needed if other not in os.environ]
        if missing and int(os.environ.get(name, -1)) >= LAUNCHER[name]:
            raise UsageError(
                f"{name}={os.environ[name]} in the environment is left over from a launcher, which would have set "
                f"{', '.join(missing)} as well; unset {name}"
            )
    number = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
    if number >= int(os.environ.get("WORLD_SIZE", number + 1)):
        names = " ".join(name for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name in os.environ)
        raise UsageError(f"{names} in the environment do not fit together; without a launcher: unset {names}")


def rank() -> int:
    """The number of this process as torchrun, Lightning or SLURM has set it."""
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def _parent_ends(within: float) -> bool:
    deadline = time.monotonic() + within
    while os.getppid() == PARENT and time.monotonic() < deadline:
        time.sleep(0.1)
    return os.getppid() != PARENT


def _end_with_parent() -> None:
    """A rank whose first process is gone would wait for it for half an hour."""
    while not _parent_ends(within=60):
        pass
    time.sleep(10)  # a run that ends well has both end at about the same time
    os._exit(FAILED)


def _check_printed(outlet: Outlet) -> int:
    """The exit code of a command that did its work, and could not print all of what it had to say."""
    sys.stdout.flush()
    if not outlet.is_full:
        return 0
    assert outlet.error
    _print(f"error: the output ends early: {outlet.error.strerror}; files that the command has written are whole")
    return FAILED


def _print(line: str) -> None:
    sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)
