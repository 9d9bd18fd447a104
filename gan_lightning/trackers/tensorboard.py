"""TensorBoard: one event file in the run's folder."""

from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.tensorboard.summary import hparams

from gan_lightning.files import python
from gan_lightning.trackers.tracker import Tracker


class TensorBoard(TensorBoardLogger, Tracker):
    """Lightning's logger, with pictures, charts of several curves, texts, and the run's line in HParams."""

    def go_on(self, iteration: int) -> None:
        self._kwargs["purge_step"] = iteration + 1  # no step twice

    def show_picture(self, tag: str, picture: Tensor, step: int) -> None:
        self.experiment.add_image(tag, picture, step)

    def show_text(self, tag: str, markdown: str, step: int = 0) -> None:
        self.experiment.add_text(tag, markdown, step)

    def show_classes(self, classes: Tensor, num_classes: int, step: int) -> None:
        self.experiment.add_histogram("histogram/classes", classes, step, bins=num_classes)

    def show_charts(self, charts: dict[str, list[str]]) -> None:
        self.experiment.add_custom_scalars({"GAN": {title: ["Multiline", tags] for title, tags in charts.items()}})

    def how_to_look(self, folder: str) -> str:
        return f"{python()} -m tensorboard.main --logdir {folder}"

    def show_result(self, scores: dict[str, float]) -> None:
        # Only the entry in HParams. add_hparams would open a second event file, and Lightning's log_hyperparams would
        # write the scores into the curves once more, at step 0.
        for summary in hparams(dict(self.hyperparameters), scores):
            self.experiment._get_file_writer().add_summary(summary)
