"""Report the scores of a trial's run to its study, and end the run if the pruner says so."""

import logging
from typing import Any

from lightning import Callback, LightningModule, Trainer

from gan_lightning.callbacks.evaluation import num_epochs
from gan_lightning.sweeps.storage import open_storage

log = logging.getLogger(__name__)


class Pruning(Callback):
    """Report a score after every evaluation, with the epoch as its step, and end the run if the pruner says so.

    On several devices the first one asks, and tells the others.

    Args:
        study: its name.
        storage: see `open_storage`.
        trial: its number.
        monitor: the score.
        pruner: an `optuna.pruners.BasePruner`.
    """

    def __init__(self, study: str, storage: str, trial: int, monitor: str, pruner: Any) -> None:
        self.study, self.storage, self.trial, self.monitor, self.pruner = study, storage, trial, monitor, pruner
        self.ending: str | None = None

    def on_validation_end(self, trainer: Trainer, gan: LightningModule) -> None:
        score = trainer.callback_metrics.get(self.monitor)
        if score is None or trainer.sanity_checking:
            return
        epoch = num_epochs(trainer)
        prune = False
        if trainer.is_global_zero:
            try:
                prune = self.ask(epoch, float(score))
            except Exception as error:  # a database that is away for a while must not end a training of hours
                log.warning("the study %s cannot be asked, the run goes on: %s", self.study, error)
        at_end = trainer.should_stop or epoch == trainer.max_epochs or trainer.global_step == trainer.max_steps
        if trainer.strategy.broadcast(prune) and not at_end:
            log.info("pruned after epoch %d: %s %.4f is worse than that of other trials", epoch, self.monitor, score)
            self.ending, trainer.should_stop = "pruned", True

    def ask(self, epoch: int, score: float) -> bool:
        """Report the score; True to prune. A trial that has ended is not asked: its run was resumed by hand."""
        import optuna

        storage = open_storage(self.storage)
        study = optuna.load_study(study_name=self.study, storage=storage, pruner=self.pruner)
        trial = study.get_trials(deepcopy=False)[self.trial]
        if trial.state.is_finished():
            return False
        # Not optuna.Trial, which would draw parameters.
        storage.set_trial_intermediate_value(trial._trial_id, epoch, score)
        return bool(study.pruner.prune(study, storage.get_trial(trial._trial_id)))
