"""Ctrl-C, a SIGTERM from whoever runs the machine, a terminal that is closed (SIGHUP): nothing is lost."""

import logging
import signal
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)

ASK_EVERY = 10  # iterations; with several devices all must stop at the same one, and asking costs a round trip


class Interrupt(Callback):
    """At the first signal finish the iteration, the pictures and the checkpoint, then end; at the second abort."""

    def __init__(self) -> None:
        self.pressed = False  # in this process
        self.ending: str | None = None  # "stopped" once any process was
        self._previous: dict[int, Any] = {}

    def on_fit_start(self, trainer: Trainer, gan: LightningModule) -> None:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # not below nohup
            numbers.append(signal.SIGHUP)
        self._previous = {number: signal.signal(number, self._handle) for number in numbers}

    def on_train_start(self, trainer: Trainer, gan: LightningModule) -> None:
        # Lightning has put its own in place meanwhile, which broadcasts from within the handler and hangs.
        signal.signal(signal.SIGTERM, self._handle)

    def teardown(self, trainer: Trainer, gan: LightningModule, stage: str) -> None:
        self.restore()

    def on_exception(self, trainer: Trainer, gan: LightningModule, exception: BaseException) -> None:
        self.restore()  # there is no teardown then

    def restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.pressed:
            signal.default_int_handler(number, frame)
        self.pressed = True

    def on_train_batch_end(
        self, trainer: Trainer, gan: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.world_size > 1:
            if gan.global_step % ASK_EVERY:
                return
            # Not into `pressed`: a Ctrl-C during the question would be overwritten by its answer.
            stop = trainer.strategy.reduce_boolean_decision(self.pressed, all=False)
        else:
            stop = self.pressed
        if stop and not self.ending:
            self.ending = "stopped"
            log.info("Ctrl-C: saving after iteration %d; a second Ctrl-C aborts", gan.global_step)
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # who wants it to stop does not want to wait for scores
