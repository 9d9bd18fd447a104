"""A dashboard that is useful at once."""

from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from gan_lightning.callbacks.network_table import markdown_table, network_rows
from gan_lightning.callbacks.scalars import final_scores
from gan_lightning.gan import GAN
from gan_lightning.losses import Loss
from gan_lightning.runs.identity import find_role, flatten, role_of


def layout(loss: Loss) -> dict[str, dict[str, list[Any]]]:
    """Of the tab Custom Scalars: D and G on one chart."""
    charts = {"losses": ["loss/discriminator", "loss/generator"], "mean logits": ["logit/real", "logit/fake"]}
    if loss.has_probabilities:
        charts["mean D(x) and D(G(z))"] = ["prob/real", "prob/fake"]
    charts["gradient norms"] = ["grad_norm/discriminator", "grad_norm/generator"]
    return {"GAN": {title: ["Multiline", tags] for title, tags in charts.items()}}


def writers(trainer: Trainer) -> list[SummaryWriter]:
    """The event files of this run: none where it has no TensorBoard logger, or on any but the first device."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


class Dashboard(Callback):
    """D and G on one chart, the config and the networks as text, and at the end the run's line in HParams.

    Args:
        config: the run's resolved config, plain containers.
        choices: the option chosen in each config group, `{"model": "mlp", ...}`.
    """

    def __init__(self, config: dict[str, Any], choices: dict[str, str]) -> None:
        self.config = config
        self.choices = choices

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        if gan.global_step or not writers(trainer):
            return  # a resumed run has all this in its event files
        networks = network_rows(gan)
        for writer in writers(trainer):
            writer.add_custom_scalars(layout(gan.loss))
            writer.add_text("config", as_markdown(self.config))
            for name, rows in networks.items():
                writer.add_text(name, markdown_table(rows))

    def on_fit_end(self, trainer: Trainer, gan: GAN) -> None:
        scores = final_scores(trainer)
        for writer in writers(trainer):
            # Only the tab's entry: add_hparams would open a second event file, and Lightning's log_hyperparams would
            # write the scores into the curves once more, at step 0.
            for summary in hparams(hyperparameters(self.choices, self.config), scores):
                writer._get_file_writer().add_summary(summary)


ELSEWHERE = ("gan.", "data.reader.")  # the one names the other blocks, the other belongs to the choice of data


def hyperparameters(choices: dict[str, str], config: dict[str, Any]) -> dict[str, Any]:
    """What a run's score may follow from, for the columns of HParams: the groups' options, and the keys that train.

    Lists and null become text, which is all that TensorBoard can store of them.
    """
    chosen = {group: option for group, option in choices.items() if find_role(group) == "trains" and option}
    keys = {
        key: value if isinstance(value, int | float | str | bool) else str(value)
        for key, value in flatten(config).items()
        if role_of(key) in ("trains", "ends", "seed") and not key.startswith(ELSEWHERE) and not key.endswith("_")
    }
    return keys | chosen


def as_markdown(config: dict[str, Any]) -> str:
    rows = [f"| `{key}` | `{value}` |" for key, value in flatten(config).items()]
    return "\n".join(["| key | value |", "| --- | --- |", *rows])
