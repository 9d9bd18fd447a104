"""The way into every command: compose the config, run the job, say in one line what went wrong.

    @command("train")               # conf/train.yaml
    def main(config): ...

The line goes to the terminal, the traceback to the run's train.log; `HYDRA_FULL_ERROR=1` shows everything.
Nothing here imports torch or Lightning, so that `--help` and a mistyped key answer at once.
"""

import contextlib
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from gan_lightning.cli.arguments import read_argv
from gan_lightning.cli.errors import (
    ANOTHER_ENDED,
    JobsFailed,
    UsageError,
    explain,
    explain_composition,
    explain_type,
    is_bug,
)
from gan_lightning.cli.help import help_text
from gan_lightning.cli.log import log_warnings
from gan_lightning.cli.numbers import check_whole_numbers
from gan_lightning.cli.processes import check_launcher, end_with_parent, parent_ends, rank
from gan_lightning.files import BYTES, conf_dir, shorten
from gan_lightning.runs.folder import typed_overrides
from gan_lightning.runs.name import run_name
from gan_lightning.runs.state import ERROR, run_state
from gan_lightning.terminal import Outlet, open_outlets, say, use_utf_8

log = logging.getLogger(__name__)

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes
FULL_ERROR = "HYDRA_FULL_ERROR"


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
    OmegaConf.register_new_resolver("run_name", lambda: run_name(rank()), replace=True, use_cache=True)
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
        log_warnings()
        if rank() > 0:
            threading.Thread(target=end_with_parent, daemon=True).start()
        try:
            check_whole_numbers(config, config_name)
            main(config)
        except Exception as error:
            exit_code = getattr(error, "exit_code", FAILED)
            _report(error, config_name, started)
        finally:
            os.environ[FULL_ERROR] = "1"

    try:
        check_launcher()
        args = read_argv(config_name)
    except UsageError as error:
        say(f"error: {error}")
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
        say("interrupted")
        return INTERRUPTED
    except JobsFailed as error:
        say(f"error: {error}")
        return FAILED
    except Exception as error:
        folder, name = Path(args.config_path or conf_dir()), args.config_name or config_name
        say(f"error: {explain_composition(error, name, args.overrides, folder)}")
        return USAGE if isinstance(error, HydraException | ValueError) else FAILED
    return exit_code


# --- Command line ------------------------------------------------------------------------------------------


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
        say(f"error: {line}")
    elif not parent_ends(within=10):  # otherwise rank 0 failed as well, and has said why
        say(f"error: rank {number}: {line}")


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


def _check_printed(outlet: Outlet) -> int:
    """The exit code of a command that did its work, and could not print all of what it had to say."""
    sys.stdout.flush()
    if not outlet.is_full:
        return 0
    assert outlet.error
    say(f"error: the output ends early: {outlet.error.strerror}; files that the command has written are whole")
    return FAILED
