"""The way into every command: compose the config, run the job, explain an error in one line.

    @command("train")               # conf/train.yaml
    def main(config): ...

The line goes to the terminal, the traceback to the run's train.log; `HYDRA_FULL_ERROR=1` shows everything.
Nothing here imports torch or Lightning, so that `--help` and a mistyped key answer at once.
"""

import argparse
import contextlib
import copy
import functools
import logging
import os
import re
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
from gan_lightning.cli.checks import check_numbers
from gan_lightning.cli.errors import JobsFailed, UsageError, another_ended, explain, explain_composition, is_bug
from gan_lightning.cli.help import help_text
from gan_lightning.cli.log import log_warnings
from gan_lightning.cli.processes import FULL_ERROR, check_launcher, end_with_parent, parent_ends, rank
from gan_lightning.files import BYTES, conf_dir, shorten
from gan_lightning.runs.folder import run_name, typed_overrides
from gan_lightning.runs.state import ERROR, run_state
from gan_lightning.terminal import Outlet, open_outlets, say, use_utf_8

log = logging.getLogger(__name__)

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit codes


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
    if not os.environ.get("GAN_LIGHTNING_DATA"):  # empty means not set
        os.environ.pop("GAN_LIGHTNING_DATA", None)
    debugging = os.environ.get(FULL_ERROR) == "1"
    failed: list[Exception] = []

    @functools.wraps(main)
    def checked(config: DictConfig) -> None:
        check_numbers(config, config_name)
        main(config)

    @functools.wraps(main)
    def job(config: DictConfig) -> None:
        started, asked = time.time(), copy.deepcopy(config)  # building from a config resolves its references in place
        os.environ.pop(FULL_ERROR, None)  # it is ours: processes that the job starts must not take it for the user's
        log_warnings()
        if rank() > 0:
            threading.Thread(target=end_with_parent, daemon=True).start()
        try:
            checked(config)
        except Exception as error:  # it stops here, so that the next job of a -m run gets its turn
            failed.append(error)
            _report(error, asked, config_name, started)
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
    start = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)
    if debugging:
        start(checked)()
        return 0
    os.environ[FULL_ERROR] = "1"  # Hydra raises, instead of printing and exiting
    exit_code = _start(start(job), args, config_name)
    return getattr(failed[-1], "exit_code", FAILED) if failed else exit_code


def _start(hydra_main: Callable[[], None], args: argparse.Namespace, config_name: str) -> int:
    """Run Hydra; what its jobs do not catch is an error of the command line, of a sweep, or a Ctrl-C."""
    try:
        hydra_main()
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
    return 0


# --- A job failed ------------------------------------------------------------------------------------------


def _report(error: Exception, config: DictConfig, config_name: str, started: float) -> None:
    """Print one line, write it to a training's error.txt, and the traceback to the log file."""
    job, number = HydraConfig.get(), rank()
    folder = job.runtime.output_dir
    line = _explain_job(error, config, config_name)
    log.debug("rank %d failed: %s", number, line, exc_info=error)  # the console starts at INFO
    if is_bug(error):
        files = [h.baseFilename for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
        where = f"in {shorten(files[0])}" if files else f"with {FULL_ERROR}=1"
        line = f"{line} (traceback {where})"
    if config_name == "train":
        line = _keep(Path(folder) / ERROR, line, started, patience=3 if another_ended(error) else 0)
    if job.mode == RunMode.MULTIRUN:
        line = f"{shorten(folder)}: {line}"
    if number == 0:
        say(f"error: {line}")
    elif not parent_ends(within=10):  # otherwise rank 0 failed as well, and has said why
        say(f"error: rank {number}: {line}")


def _explain_job(error: Exception, config: DictConfig, config_name: str) -> str:
    """What is wrong with a job, by what was typed for it: of a resumed run also when it was begun."""
    job = HydraConfig.get()
    folder, overrides = job.runtime.output_dir, list(job.overrides.task)
    place = "hydra.run.dir" if config_name == "train" else "out"
    if config_name == "train" and job.output_subdir is None:  # started from the config that is saved in its folder
        with contextlib.suppress(ValueError):  # a broken file there has been named, or is not what failed
            overrides += [word for word in typed_overrides(Path(folder)) if word not in overrides]
        missing = error.full_key if isinstance(error, ConfigKeyError | ConfigAttributeError) else None
        if found := re.match(r"Interpolation key '([\w.]+)' not found", str(error)):  # another key refers to it
            missing = found[1]
        if missing and not any(word.lstrip("~") == missing for word in overrides):
            return f"{shorten(Path(folder) / '.hydra' / 'config.yaml')} lacks {missing}, which every run has"
    return explain(error, folder, overrides, place, config)


def _keep(file: Path, line: str, started: float, patience: float) -> str:
    """Write why a run failed to its error.txt, and return it. The first of its processes to fail knows best.

    A process waits `patience` seconds for another one to write first.
    """
    state = run_state(file.parent)
    if state.is_final or (state.name == "running" and rank() == 0):
        return line  # a refused resume=, or a folder that another training is at work in: that run has not failed
    deadline = time.monotonic() + patience
    with contextlib.suppress(OSError):  # a full disk has been reported already
        while not (written := file.exists() and file.stat().st_mtime > started) and time.monotonic() < deadline:
            time.sleep(0.1)
        if not written:
            told = f"rank {rank()}: {line}\n" if rank() else f"{line}\n"
            file.write_text(told, encoding="utf-8", errors=BYTES)
        elif rank() == 0:
            return file.read_text(encoding="utf-8", errors=BYTES).strip()
    return line


def _check_printed(outlet: Outlet) -> int:
    """The exit code of a command that did its work: not 0 if some of its output could not be printed."""
    sys.stdout.flush()
    if not outlet.is_full:
        return 0
    assert outlet.error
    say(f"error: the output ends early: {outlet.error.strerror}; files that the command has written are whole")
    return FAILED
