"""What every tracker shows of a run: its settings, its networks, D and G on one chart, and its result at the end."""

from lightning import Callback, Trainer

from gan_lightning.callbacks.network_table import markdown_table, network_rows
from gan_lightning.callbacks.scalars import final_scores
from gan_lightning.gan import GAN
from gan_lightning.losses import Loss
from gan_lightning.trackers.tracker import as_markdown, trackers


def charts(loss: Loss) -> dict[str, list[str]]:
    """Title -> tags of the curves on one chart."""
    found = {"losses": ["loss/discriminator", "loss/generator"], "mean logits": ["logit/real", "logit/fake"]}
    if loss.has_probabilities:
        found["mean D(x) and D(G(z))"] = ["prob/real", "prob/fake"]
    return found | {"gradient norms": ["grad_norm/discriminator", "grad_norm/generator"]}


class Dashboard(Callback):
    """Show a run's settings and networks when it begins, and its result when it ends."""

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        if gan.global_step or not trackers(trainer):
            return  # a resumed run has shown all this
        networks = network_rows(gan)
        for tracker in trackers(trainer):
            tracker.show_charts(charts(gan.loss))
            tracker.show_text("config", as_markdown(tracker.settings))
            for name, rows in networks.items():
                tracker.show_text(name, markdown_table(rows))

    def on_fit_end(self, trainer: Trainer, gan: GAN) -> None:
        for tracker in trackers(trainer):
            tracker.show_result(final_scores(trainer))
