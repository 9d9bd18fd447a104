import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from test_gan import fit, small_gan

from gan_lightning.callbacks.dashboard import Dashboard
from gan_lightning.callbacks.pictures import Pictures
from gan_lightning.callbacks.scalars import Scalars
from gan_lightning.losses import Hinge, NonSaturating
from gan_lightning.runs.identity import flatten, hyperparameters
from gan_lightning.trackers.csv import CSV
from gan_lightning.trackers.tensorboard import TensorBoard

CONFIG = {
    "seed": 3,
    "model": {"generator": {"_target_": "gan_lightning.models.mlp.Generator", "hidden": [256, 512]}},
    "ema": None,
    "optimizer": {"generator": {"lr": 2e-4}},
    "data": {"root": "/somewhere", "batch_size": 8},
}


def described(tracker):
    tracker.describe(flatten(CONFIG), hyperparameters({"model": "mlp", "logger": "tensorboard"}, flatten(CONFIG)))
    return tracker


def dashboard(folder, iterations=4, **settings):
    trainer = fit(
        small_gan(**settings),
        folder,
        iterations,
        callbacks=[Scalars(), Pictures(num_images=4), Dashboard()],
        logger=described(TensorBoard(folder, name="", version="")),
        log_every_n_steps=2,
    )
    files = list(folder.rglob("events.out.tfevents.*"))
    assert len(files) == 1
    return trainer, EventAccumulator(str(files[0]), size_guidance={"tensors": 0}).Reload()


def text(events, tag):
    (event,) = events.Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


@pytest.mark.parametrize("loss", [NonSaturating(), Hinge()])
def test_custom_scalars_put_both_networks_on_one_chart_of_tags_that_exist(tmp_path, loss):
    _, events = dashboard(tmp_path, loss=loss)
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert charts["losses"] == ["loss/discriminator", "loss/generator"]
    assert charts["mean logits"] == ["logit/real", "logit/fake"]
    assert ("mean D(x) and D(G(z))" in charts) == loss.has_probabilities
    assert {tag for tags in charts.values() for tag in tags} <= set(events.Tags()["scalars"])


def test_config_and_networks_are_there_as_text(tmp_path):
    _, events = dashboard(tmp_path)
    config = text(events, "config")
    for key, value in {
        "seed": 3,
        "model.generator.hidden": [256, 512],
        "ema": None,
        "optimizer.generator.lr": 2e-4,
    }.items():
        assert any(key in line and str(value) in line for line in config.splitlines()), key
    assert "ConvTranspose2d" in text(events, "generator")
    assert "Linear" in text(events, "discriminator")


def test_hparams_carry_what_was_typed_and_the_final_losses(tmp_path):
    trainer, events = dashboard(tmp_path)
    plugin = events.summary_metadata
    start = plugin["_hparams_/session_start_info"].plugin_data.content
    experiment = plugin["_hparams_/experiment"].plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(start).session_start_info.hparams
    assert hparams["seed"].number_value == 3
    assert hparams["optimizer.generator.lr"].number_value == 2e-4
    assert hparams["model"].string_value == "mlp"
    metrics = plugin_data_pb2.HParamsPluginData.FromString(experiment).experiment.metric_infos
    assert {metric.name.tag for metric in metrics} == {"loss/discriminator", "loss/generator"}
    for tag in ("loss/discriminator", "loss/generator"):  # the tab shows the last point of the curve
        assert abs(events.Scalars(tag)[-1].value - trainer.callback_metrics[tag]) < 1e-6


def test_hparams_add_no_points_to_the_curves(tmp_path):
    _, events = dashboard(tmp_path)
    assert [event.step for event in events.Scalars("loss/generator")] == [2, 4]
    assert "hp_metric" not in events.Tags()["scalars"]


def test_run_without_tensorboard_needs_no_dashboard(tmp_path):
    callbacks = [Scalars(), Pictures(num_images=4), Dashboard()]
    fit(small_gan(), tmp_path / "none", 1, callbacks=callbacks)
    logger = described(CSV(tmp_path, name="curves", version=""))
    fit(small_gan(), tmp_path / "csv", 2, callbacks=callbacks, logger=logger, log_every_n_steps=2)
    assert "prob/real" in (tmp_path / "curves" / "metrics.csv").read_text().splitlines()[0]
    assert not list(tmp_path.rglob("events.out.tfevents.*"))
