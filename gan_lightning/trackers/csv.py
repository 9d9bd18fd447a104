"""The curves as a CSV file in the run's folder."""

from lightning.pytorch.loggers import CSVLogger

from gan_lightning.trackers.tracker import Tracker


class CSV(CSVLogger, Tracker):
    """Lightning's logger; a resumed run writes another file, because this one would delete the first."""

    def go_on(self, iteration: int) -> None:
        self._version = f"from_iteration_{iteration}"
