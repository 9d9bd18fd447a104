"""Run an Optuna study as a Hydra sweep.

`StudySweeper` has `sweep.workers` threads. Each one takes a trial from `Trials`, launches the trial's jobs, and tells
the study how they ended. `Trials` counts the trials, and takes over those that a killed sweep has left.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import statistics
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from gan_lightning.cli.checks import check_values, whole
from gan_lightning.files import python, shorten
from gan_lightning.metrics.better import Direction, direction_of
from gan_lightning.runs.identity import setting
from gan_lightning.runs.state import ERROR, is_locked, run_state
from gan_lightning.runs.typed import as_argument
from gan_lightning.sweeps.ending import at_work, finish
from gan_lightning.sweeps.launcher import ProcessLauncher
from gan_lightning.sweeps.overrides import REPORTING, for_jobs, job_folder, parse
from gan_lightning.sweeps.space import Space, as_override, distribution, first_values, override, split, suggest
from gan_lightning.sweeps.storage import open_storage
from gan_lightning.terminal import one_line

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

HEARTBEAT = 60.0  # seconds between signs of life in the study
DEAD = 5 * HEARTBEAT  # after so long without a sign of life, a trial of another machine is taken over


class StudySweeper(Sweeper):
    """Run trials until the study has `sweep.n_trials`; started again, it goes on where it was."""

    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)
        if type(self.launcher).__name__ == "BasicLauncher":
            raise ValueError("hydra/launcher=basic: a study needs a process for each job; use hydra/launcher=process")
        self.stopping: threading.Event = getattr(self.launcher, "stopping", None) or threading.Event()
        self.error: BaseException | None = None

    def sweep(self, arguments: list[str]) -> None:
        """Raise JobsFailed if a trial failed, ValueError for settings that do not go together."""
        settings = self.config.sweep
        every = "distributions" in settings.sampler  # null: all combinations of the space
        n_trials = whole(1, null="every combination") if every else whole(1)
        check_values(settings, {"n_trials": n_trials, "seeds": whole(1)}, "sweep")
        if not self.config.metrics and settings.metric.startswith("metrics/"):
            raise ValueError(f"metrics=none: no job will have sweep.metric={settings.metric}; try metrics=judge")
        self.fixed, typed_space = split(for_jobs(self.config, arguments))
        typed = {word.key_or_group for word in parse(self.fixed)}
        in_yaml = cast(Space, OmegaConf.to_container(settings.space, resolve=True))
        space: Space = {key: given for key, given in in_yaml.items() if key not in typed} | typed_space
        if not space:
            raise ValueError(
                "sweep.space is empty; give a key several values: 'optimizer.generator.lr=interval(1e-5,1e-3)'"
            )
        distributions = {key: distribution(key, given) for key, given in space.items()}
        words = [*self.fixed, *first_values(distributions)]
        self.base = self.hydra_context.config_loader.load_sweep_config(self.config, words)
        self.trials = Trials(self.config, distributions, self._identity(space))
        self._show_best()
        with at_work(self.config, self.launcher, self.stopping):
            how = "" if find_spec("optuna_dashboard") else f"{python()} -m pip install optuna-dashboard, then "
            live = f"; live: {how}optuna-dashboard {as_argument(shorten(self.trials.place))}"
            log.info("%s%s", self.trials.describe(), "" if settings.storage else live)
            workers = [threading.Thread(target=self._work, daemon=True) for _ in range(settings.workers)]
            for worker in workers:
                worker.start()
            while any(worker.is_alive() for worker in workers):
                time.sleep(0.2)
                self.trials.beat()
                if self.stopping.is_set() and not hasattr(self.launcher, "kill"):
                    break  # of SLURM's jobs: they go on
        if self.error:
            raise self.error
        finish(self.config)

    def _show_best(self) -> None:
        """Show the best score of earlier sweeps of this study."""
        if self.config.sweep.seeds == 1 and (best := self.trials.best()) and hasattr(self.launcher, "board"):
            self.launcher.board.best = self.launcher.board.sign * best[0], best[1]

    def _identity(self, space: Space) -> dict[str, Any]:
        """What all trials of a study must share to be compared: their config, and the study's own settings."""
        base = cast(dict[Any, Any], OmegaConf.to_container(self.base, resolve=False))
        keys = {"seed": self.base.seed, **setting(base)}
        same = {key: value for key, value in keys.items() if key not in space}
        asked = {f"sweep.{name}": self.config.sweep[name] for name in ("metric", "seeds")}
        asked["sweep.direction"] = study_direction(self.config.sweep)
        return json.loads(json.dumps({**same, **asked, "sweep.space": space}))

    def _work(self) -> None:
        try:
            while not self.stopping.is_set() and (taken := self.trials.take()):
                if not self._run(*taken) and self.config.sweep.on_failure == "stop":
                    self.stopping.set()
        except BaseException as error:
            self.error = self.error or error
            self.stopping.set()

    def _run(self, trial: Trial, values: dict[str, Any]) -> bool:
        """Run the jobs of a trial, and tell the study; False if it failed."""
        settings = self.config.sweep
        parameters = [override(key, value) for key, value in values.items()]
        scores: list[float] = []
        for turn in range(settings.seeds):
            number = trial.number * settings.seeds + turn
            overrides = [*self.fixed, *parameters, *self._seed(turn), *self._reporting(trial, turn)]
            folder = job_folder(self.config, number)
            self._launch(overrides, number, folder)
            state = run_state(folder)
            trial.set_user_attr(f"folder_{turn}" if turn else "folder", str(folder))
            if state.name == "running" or (self.stopping.is_set() and state.name not in ("done", "pruned", "failed")):
                return True  # the trial stays a running one; the next sweep of this study takes it over
            if state.name != "done":
                self.trials.tell(trial, None, state.name, state.error)
                return state.name == "pruned"
            if settings.metric not in state.metrics:
                known = ", ".join(state.numbers)
                raise ValueError(f"sweep.metric={settings.metric}: no run has it; there is {known}")
            score = state.score(settings.metric)
            if score is None:
                self.trials.tell(trial, None, "failed", f"{settings.metric} is {state.metrics[settings.metric]}")
                return False
            scores.append(score)
        self.trials.tell(trial, statistics.fmean(scores), "done")
        return True

    def _launch(self, overrides: list[str], number: int, folder: Path) -> None:
        try:
            self.launcher.launch([overrides], initial_job_idx=number)
        except Exception as error:
            if isinstance(self.launcher, ProcessLauncher):
                raise
            # SLURM has ended the job, which took too much memory or time.
            if not run_state(folder).is_final:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / ERROR).write_text(f"{one_line(error)[:500]}\n", encoding="utf-8")

    def _seed(self, turn: int) -> list[str]:
        """The override for one seed of a trial; they count up from `seed`."""
        if self.config.sweep.seeds == 1:
            return []
        return [f"seed={self.base.seed + turn}"]

    def _reporting(self, trial: Trial, turn: int) -> list[str]:
        """The override that makes a job report to the study: only the first seed of a trial, and only with a pruner."""
        pruner = OmegaConf.to_container(self.config.sweep.pruner) if self.config.sweep.pruner else None
        if turn or not pruner:
            return []
        callback = {
            "_target_": "gan_lightning.sweeps.pruning.Pruning",
            "study": trial.study.study_name,
            "storage": self.trials.place,
            "trial": trial.number,
            "monitor": self.config.sweep.metric,
            "pruner": pruner,
        }
        return [f"+{REPORTING}={as_override(callback)}"]


class Trials:
    """The trials of a study, shared by threads and machines: each is run once, `n_trials` in all.

    All trials share the `identity`; ValueError if the study has some with another one.
    """

    def __init__(
        self, config: DictConfig, distributions: dict[str, BaseDistribution], identity: dict[str, Any]
    ) -> None:
        import optuna
        from hydra.utils import instantiate

        self.settings = config.sweep
        self.folder = Path(config.hydra.sweep.dir)
        self.place = str(self.settings.storage or (self.folder / "study.journal").absolute())
        self.distributions = distributions
        combinations = getattr(self._sampler(), "combinations", None)
        self.n_trials = min(filter(None, (self.settings.n_trials, combinations and len(combinations))))
        pruner = instantiate(self.settings.pruner) if self.settings.pruner else None
        self.study = optuna.create_study(
            storage=open_storage(self.place),
            study_name=self.settings.name,
            direction=study_direction(self.settings),
            pruner=pruner,
            load_if_exists=True,
        )
        self.me = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.mine: set[int] = set()  # ids
        self.lock = threading.RLock()
        (self.folder / ".sweepers").mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".sweepers" / "take.lock"):
            self._check(identity)
        self.alive = FileLock(self._lock_of(self.me))  # the kernel lets go of it when this process ends
        self.alive.acquire(timeout=0)
        self.beaten = time.monotonic()

    def describe(self) -> str:
        """`study mlp_tpe: 3 of 30 trials have ended`."""
        ended = sum(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))
        return f"study {self.settings.name}: {ended} of {self.n_trials} trials have ended"

    def take(self) -> tuple[Trial, dict[str, Any]] | None:
        """The next trial, with its values: one that a dead sweep has begun, or else a new one; None: no more."""
        # The locks keep out this process's threads and other sweeps that see this folder. Machines that share only a
        # database may start one trial too many.
        with self.lock, FileLock(self.folder / ".sweepers" / "take.lock"):
            trials = self.study.get_trials(deepcopy=False)
            trial = self._take_over(trials) or self._ask(trials)
            if trial is None:
                return None
            self.mine.add(trial._trial_id)
            trial.set_user_attr("sweeper", self.me)
            trial.set_user_attr("alive", time.time())
            # Before another thread gives the study the sampler of its own trial. A trial that was begun has its values.
            return trial, {key: suggest(trial, key, distribution) for key, distribution in self.distributions.items()}

    def _take_over(self, trials: Sequence[FrozenTrial]) -> Trial | None:
        """A trial that a dead sweep has begun."""
        import optuna

        running = [trial for trial in trials if trial.state == optuna.trial.TrialState.RUNNING]
        left = next(filter(self._is_abandoned, running), None)
        if left is None:
            return None
        self.study.sampler = self._sampler(left.number)
        return optuna.Trial(self.study, left._trial_id)

    def _ask(self, trials: Sequence[FrozenTrial]) -> Trial | None:
        """A new trial, or None if there are enough."""
        from optuna.trial import TrialState

        if sum(trial.state != TrialState.WAITING for trial in trials) >= self.n_trials:
            return None
        self.study.sampler = self._sampler(len(trials))
        return self.study.ask()

    def tell(self, trial: Trial, value: float | None, ended: str, error: str = "") -> None:
        """Tell the study how a trial ended: done (with a value), pruned, or else failed."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        states = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
        with self.lock:
            self.mine.discard(trial._trial_id)
            if error:
                with suppress(UpdateFinishedTrialError):  # somebody has ended it in the dashboard
                    trial.set_user_attr("error", error)
            self.study.tell(trial, value, states.get(ended, TrialState.FAIL), skip_if_finished=True)
            best = self.best()
        if best and value is not None and self.settings.seeds > 1:
            log.info("trial %d: mean of %d seeds %.4f; best so far %.4f, trial %d", trial.number, self.settings.seeds,
                     value, *best)  # fmt: skip

    def best(self) -> tuple[float, int] | None:
        """The best value, and the number of its trial; None if no trial is complete."""
        from optuna.trial import TrialState

        if not any(trial.state == TrialState.COMPLETE for trial in self.study.get_trials(deepcopy=False)):
            return None
        return self.study.best_value, self.study.best_trial.number

    def beat(self) -> None:
        """Tell other machines, once a minute, that this one still runs its trials."""
        if time.monotonic() - self.beaten < HEARTBEAT:
            return
        self.beaten = time.monotonic()
        with self.lock:
            for trial_id in self.mine:
                try:
                    self.study._storage.set_trial_user_attr(trial_id, "alive", time.time())
                except Exception as error:  # a database that is away for a while
                    log.warning("the study cannot be told that its trials go on: %s", error)

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        """Is the sweep dead that runs this trial? Asked under take.lock, so that no other sweep signs meanwhile."""
        sweeper = trial.user_attrs.get("sweeper")
        if sweeper == self.me:
            return False
        if sweeper is None and self.settings.storage is None:
            return True  # killed before it could sign
        if sweeper and self._lock_of(sweeper).exists():  # it sees this folder
            return not is_locked(self._lock_of(sweeper))
        assert trial.datetime_start
        alive = trial.user_attrs.get("alive") or trial.datetime_start.timestamp()
        return bool(time.time() - alive > DEAD)

    def _lock_of(self, sweeper: str) -> Path:
        return self.folder / ".sweepers" / f"{sweeper}.lock"

    def _sampler(self, number: int = 0) -> Any:
        """A sampler with the trial's number in its seed, so that a study that goes on does not repeat its draws."""
        from hydra.utils import instantiate

        given = self.settings.sampler
        seed = {"seed": given.seed + number} if given.get("seed") is not None else {}
        distributions = {"distributions": self.distributions} if "distributions" in given else {}
        return instantiate(given, **seed, **distributions)

    def _check(self, identity: dict[str, Any]) -> None:
        earlier = self.study.user_attrs.get("identity")
        if earlier is None or not self.study.get_trials(deepcopy=False):
            self.study.set_user_attr("identity", identity)
            self.study.set_metric_names([self.settings.metric])
            return
        changed = sorted(key for key in earlier.keys() | identity.keys() if earlier.get(key) != identity.get(key))
        if changed:
            key = changed[0]
            raise ValueError(
                f"sweep.name={self.settings.name}: its trials were made with other settings "
                f"({', '.join(changed[:8])}; {key} was {earlier.get(key)}, is {identity.get(key)}); "
                "choose another sweep.name for a new study"
            )


def study_direction(settings: DictConfig) -> Direction:
    return direction_of(settings.metric, settings.direction, "sweep.direction")
