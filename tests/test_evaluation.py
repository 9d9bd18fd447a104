"""Scores while training, with a stub in place of the judge: shades of grey as classes, so that all is known."""

import json
import logging
import re
from types import SimpleNamespace

import idx_files
import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_gan import BATCH_SIZE, BATCHES, LATENT_DIM, SHAPE, same, small_gan, weights
from torch import nn

from gan_lightning.callbacks import evaluation as evaluation_module
from gan_lightning.callbacks.alarms import Alarms
from gan_lightning.callbacks.evaluation import Evaluation, LastScores
from gan_lightning.callbacks.saving import Checkpoints
from gan_lightning.callbacks.scalars import Scalars, gradient_norm
from gan_lightning.conditioning import Conditioning
from gan_lightning.data import ImageDataModule
from gan_lightning.ema import EMA
from gan_lightning.metrics.judge import load_judge
from gan_lightning.metrics.scores import load_reference, score
from gan_lightning.models import mlp
from gan_lightning.models.labels import Layers
from gan_lightning.noise import sample_blocks
from gan_lightning.runs.state import run_state
from gan_lightning.trackers.tensorboard import TensorBoard
from gan_lightning.train import build_gan, build_trainer, main

NUM_SAMPLES = 1100  # three blocks
SHADES = (30, 100, 160, 220)  # grey levels, one a class


class Shades:
    """A Reader of images of one grey level each, with noise: four classes, as many of each."""

    def fetch(self, root):
        pass

    def read(self, root, split):
        draw = torch.Generator().manual_seed(len(split))
        labels = torch.arange(BATCH_SIZE * BATCHES if split == "train" else 60) % 4
        level = torch.tensor(SHADES)[labels].view(-1, 1, 1, 1)
        images = level + 8 * torch.randn(len(labels), *SHAPE, generator=draw)
        return images.clamp(0, 255).to(torch.uint8), labels


class Stub:
    """An Extractor that knows the four shades. Eight features: sums of the pixels with fixed weights."""

    name, sha256, classifies_data, device = "stub", "0" * 64, True, torch.device("cpu")
    test_accuracy, class_shape = 1.0, (4,)

    def __call__(self, images):
        projection = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) / 8
        levels = (images.flatten(1).mean(dim=1, keepdim=True) + 1) * 127.5
        return images.flatten(1) @ projection, -((levels - torch.tensor(SHADES)) ** 2) / 100


def shades(folder, **settings):
    return ImageDataModule(folder, Shades(), SHAPE, BATCH_SIZE, num_val_samples=NUM_SAMPLES, name="shades", **settings)


def evaluated(gan, folder, epochs=1, *, callbacks=(), every=1, data=None, evaluation=None, **settings):
    """Train for some epochs with scores; returns the Trainer."""
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        num_sanity_val_steps=0,
        check_val_every_n_epoch=every,
        callbacks=[Scalars(), evaluation or Evaluation(Stub()), LastScores(), *callbacks],
        enable_model_summary=False,
        enable_progress_bar=False,
        **{"max_epochs": epochs, "log_every_n_steps": 1, "logger": False, "enable_checkpointing": False} | settings,
    )
    trainer.fit(gan, data or shades(folder))
    return trainer


@pytest.fixture
def scored(monkeypatch):
    """The images of every evaluation, in place of their scores' cost: FID is what `scored.fids` says, in turn."""

    class Scored(list):
        fids = None

    found = Scored()

    def watch(images, reference, labels):
        scores = score(images, reference, labels)
        found.append(images)
        if found.fids:
            scores.values["fid"] = found.fids[len(found) - 1]
        return scores

    monkeypatch.setattr(evaluation_module, "score", watch)
    return found


def curves(folder):
    file = next(folder.rglob("events.out.tfevents.*"))
    events = EventAccumulator(str(file), size_guidance={"histograms": 0}).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}, events


# --- Watching changes nothing --------------------------------------------------------------------------------


def test_weights_are_bit_equal_with_evaluation_and_without(tmp_path):
    watched, alone = small_gan(ema=EMA()), small_gan(ema=EMA())
    best = ModelCheckpoint(tmp_path / "best", filename="best", monitor="metrics/fid")
    trainer = evaluated(watched, tmp_path, 2, callbacks=[Alarms(1), best], enable_checkpointing=True)
    assert trainer.callback_metrics["metrics/fid"] > 0 and (tmp_path / "best" / "best.ckpt").is_file()
    evaluated(alone, tmp_path, 2, limit_val_batches=0)
    assert same(weights(watched), weights(alone))
    optimizers = trainer.optimizers[0].state_dict()["state"], alone.trainer.optimizers[0].state_dict()["state"]
    assert all(torch.equal(a["exp_avg"], b["exp_avg"]) for a, b in zip(*map(dict.values, optimizers), strict=True))


def test_gradients_outlive_an_evaluation(tmp_path):
    """The curves and the checkpoint after it hold their norm."""
    norms = []

    class Norms(Callback):
        def on_validation_end(self, trainer, gan):
            norms.append([float(gradient_norm(network)) for network in (gan.generator, gan.discriminator)])

    trainer = evaluated(small_gan(), tmp_path, callbacks=[Norms()])
    last = [float(trainer.callback_metrics[f"grad_norm/{name}"]) for name in ("generator", "discriminator")]
    assert norms == [pytest.approx(last)] and min(last) > 0


def test_evaluation_leaves_the_generator_in_the_mode_it_trains_in(tmp_path):
    gan = small_gan()
    evaluated(gan, tmp_path)
    assert gan.generator.training and gan.discriminator.training


# --- What is scored ------------------------------------------------------------------------------------------


def test_blocks_dealt_to_two_ranks_are_together_those_of_one(tmp_path):
    class Place:
        world_size = 2

    data, dealt = shades(tmp_path), []
    for Place.global_rank in (0, 1):
        data.trainer = Place()
        dealt.append(list(data.val_dataloader()))
    assert dealt == [[(0, 500), (2, 100)], [(1, 500)]]
    data.trainer = None
    assert sorted(dealt[0] + dealt[1]) == list(data.val_dataloader()) == sample_blocks(NUM_SAMPLES)


@pytest.mark.parametrize(
    ("world_size", "limit", "expected"),
    [(1, 1.0, 1100), (1, 1, 500), (1, 2, 1000), (1, 0.5, 500), (2, 1, 1000), (2, 2, 1100), (2, 0.5, 500), (1, 0, 0)],
)
def test_what_is_drawn_follows_from_the_limit_of_each_device(tmp_path, world_size, limit, expected):
    data = shades(tmp_path)
    data.trainer = SimpleNamespace(world_size=world_size, global_rank=0)
    assert data.num_drawn(limit) == expected


def test_two_ranks_score_the_samples_of_one(tmp_path, scored, monkeypatch):
    gan = small_gan()
    evaluated(gan, tmp_path)
    ours = [gan.validation_step(block, 0) for block in sample_blocks(NUM_SAMPLES)[0::2]]
    theirs = [gan.validation_step(block, 0) for block in reversed(sample_blocks(NUM_SAMPLES)[1::2])]
    evaluation = Evaluation(Stub())
    evaluation.setup(gan.trainer, gan, "fit")
    evaluation.on_validation_start(gan.trainer, gan)
    for outputs in theirs:
        evaluation.on_validation_batch_end(gan.trainer, gan, outputs)
    others = evaluation.samples
    evaluation.on_validation_start(gan.trainer, gan)
    for outputs in ours:
        evaluation.on_validation_batch_end(gan.trainer, gan, outputs)
    monkeypatch.setattr(evaluation_module, "gather", lambda samples: {**others, **samples})
    monkeypatch.setattr(gan, "log_dict", lambda *_, **__: None)
    evaluation.on_validation_epoch_end(gan.trainer, gan)
    assert len(scored) == 2 and len(scored[0]) == NUM_SAMPLES
    assert torch.equal(scored[0], scored[1])


def test_every_evaluation_of_every_run_judges_the_same_noise(tmp_path, scored):
    still = {f"{name}_optimizer": lambda p: torch.optim.SGD(p, lr=0.0) for name in ("generator", "discriminator")}
    generator = Layers(nn.Linear(LATENT_DIM, 64), nn.Tanh(), nn.Unflatten(1, SHAPE))
    for seed in (0, 7):
        gan = small_gan(generator=generator, **still)
        gan.seed = seed
        evaluated(gan, tmp_path, 2, data=shades(tmp_path, seed=seed))
    assert scored[0].dtype == torch.uint8 and scored[0].shape == (NUM_SAMPLES, *SHAPE)
    assert len(scored) == 4 and all(torch.equal(scored[0], images) for images in scored)
    assert len(scored[0].unique(dim=0)) == NUM_SAMPLES  # no block repeats another


def test_the_averaged_generator_is_scored_where_there_is_one(tmp_path, scored):
    gan = small_gan(ema=EMA())
    evaluated(gan, tmp_path)
    gan.generator = gan.ema.generator
    gan.ema = None
    images = torch.cat([gan.validation_step(block, 0)["images"] for block in sample_blocks(NUM_SAMPLES)])
    assert torch.equal(evaluation_module.to_uint8(images), scored[0])


class Obedient(nn.Module):
    """Paints the shade of the class asked for, of every tenth image another one."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, z, labels):
        wrong = (torch.arange(len(z)) % 10 == 0).long()
        level = torch.tensor(SHADES)[(labels + wrong) % 4] + 3 * z[:, 0]
        return level.view(-1, 1, 1, 1).expand(-1, *SHAPE) / 127.5 - 1 + self.offset


def test_conditional_accuracy_is_the_share_of_samples_of_the_class_asked_for(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    evaluation = Evaluation(Stub())
    discriminator = mlp.Discriminator(SHAPE, hidden=[16], conditioning="concat", num_classes=4)
    still = {f"{name}_optimizer": lambda p: torch.optim.SGD(p, lr=0.0) for name in ("generator", "discriminator")}
    gan = small_gan(generator=Obedient(), discriminator=discriminator, conditioning=Conditioning(4), **still)
    trainer = evaluated(gan, tmp_path, data=shades(tmp_path, num_classes=4), evaluation=evaluation)
    assert trainer.callback_metrics["metrics/conditional_accuracy"] == pytest.approx(0.9)
    assert evaluation.control.values["conditional_accuracy"] == 1  # the stub knows the shades of real images
    assert "conditional_accuracy 0.900 (real 1.000)" in caplog.text


def test_unconditional_gan_has_no_conditional_accuracy(tmp_path):
    evaluation = Evaluation(Stub())
    evaluated(small_gan(), tmp_path, data=shades(tmp_path, num_classes=4), evaluation=evaluation)
    assert not {"conditional_accuracy"} & (evaluation.scores.values.keys() | evaluation.control.values.keys())


def test_real_images_scored_as_if_generated_are_the_control(tmp_path):
    evaluation = Evaluation(Stub())
    evaluated(small_gan(), tmp_path, evaluation=evaluation)
    assert evaluation.control.about["samples"] == "test split"
    assert evaluation.control.about["num_samples"] == 60
    assert evaluation.control.values["fid"] < evaluation.scores.values["fid"]


def test_a_reference_is_cached_in_the_given_folder(tmp_path):
    evaluated(small_gan(), tmp_path, evaluation=Evaluation(Stub(), tmp_path / "cache"))
    assert len(list((tmp_path / "cache").glob("shades-*.reference"))) == 1


# --- When ----------------------------------------------------------------------------------------------------


def steps_scored(folder, gan, epochs, **settings):
    evaluated(gan, folder, epochs, logger=TensorBoard(folder, name="", version=""), **settings)
    return [step for step, _ in curves(folder)[0]["metrics/fid"]]


@pytest.mark.parametrize(
    ("epochs", "every", "expected"), [(4, 2, [2, 4]), (5, 2, [2, 4, 5]), (2, 10, [2]), (1, 10, [1])]
)
def test_scores_come_every_n_epochs_and_at_the_last(tmp_path, epochs, every, expected):
    assert steps_scored(tmp_path, small_gan(), epochs, every=every) == [BATCHES * epoch for epoch in expected]


@pytest.mark.parametrize(("max_steps", "expected"), [(4, [4]), (12, [12]), (15, [12, 15])])
def test_the_last_iteration_is_scored_in_the_middle_of_an_epoch_too(tmp_path, max_steps, expected):
    gan = small_gan()
    assert steps_scored(tmp_path, gan, -1, every=2, max_steps=max_steps) == expected
    assert gan.trainer.global_step == max_steps


class StopAt(Callback):
    def on_train_batch_end(self, trainer, gan, *_):
        trainer.should_stop = trainer.should_stop or gan.global_step == 8


class StopAfterEpoch(Callback):
    def on_train_epoch_end(self, trainer, gan):
        trainer.should_stop = True


ENDS = {  # (epochs, every, settings) -> the iterations that are scored; an epoch has six
    "a callback, within an epoch": ((3, 10, {"callbacks": [StopAt()]}), [8]),
    "a callback, after an epoch": ((3, 10, {"callbacks": [StopAfterEpoch()]}), [6]),
    "early stopping by a loss": (
        (9, 10, {"callbacks": [EarlyStopping("lr/generator", patience=1, check_on_train_epoch_end=True)]}),
        [12],
    ),
    "max_time": ((3, 10, {"max_time": {"microseconds": 1}}), [1]),
    "val_check_interval": ((-1, None, {"val_check_interval": 5, "max_steps": 12}), [5, 10, 12]),
    "val_check_interval at the end": ((2, None, {"val_check_interval": 4}), [4, 8, 12]),
    "val_check_interval too long": ((1, None, {"val_check_interval": 50}), [6]),
    "half epochs": ((1, 1, {"val_check_interval": 0.5}), [3, 6]),
    "max_steps": ((-1, None, {"max_steps": 4, "val_check_interval": 50}), [4]),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_end_is_scored_once_however_a_run_ends(tmp_path, end):
    (epochs, every, settings), expected = ENDS[end]
    gan, checkpoint = small_gan(), Checkpoints()
    callbacks = [*settings.get("callbacks", ()), checkpoint]
    settings = settings | {"callbacks": callbacks, "enable_checkpointing": True}
    assert steps_scored(tmp_path, gan, epochs, every=every, **settings) == expected
    assert gan.trainer.check_val_every_n_epoch == every
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == expected[-1] and last["callbacks"]["Checkpoints"]["best"] == checkpoint.best


@pytest.mark.parametrize("limits", [{}, {"limit_val_batches": 0}])
def test_without_validation_samples_nothing_is_validated_and_nothing_warned_of(tmp_path, limits):
    gan, data = small_gan(), ImageDataModule(tmp_path, Shades(), SHAPE, BATCH_SIZE, num_val_samples=0)
    gan.validation_step = lambda *_: pytest.fail("validates")
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=1,
        log_every_n_steps=1,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        **limits,
    )
    trainer.fit(gan, data)


# --- Where the scores go -------------------------------------------------------------------------------------


def test_scores_and_class_histogram_go_to_tensorboard_at_the_iteration(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    evaluation = Evaluation(Stub())
    logger = TensorBoard(tmp_path, name="", version="")
    evaluated(small_gan(), tmp_path, 2, evaluation=evaluation, callbacks=[Alarms()], logger=logger)
    scalars, events = curves(tmp_path)
    for name, value in evaluation.scores.values.items():
        points = scalars[f"metrics/{name}"]
        assert [step for step, _ in points] == [BATCHES, 2 * BATCHES]
        assert points[-1][1] == pytest.approx(value, rel=1e-6), name
    assert {"metrics/variety", "metrics/class_excess", "alarm/mode_collapse", "alarm/dead_generator"} <= scalars.keys()
    histograms = events.Histograms("histogram/classes")
    assert [h.step for h in histograms] == [BATCHES, 2 * BATCHES]
    assert histograms[-1].histogram_value.num == NUM_SAMPLES
    lines = [record.message for record in caplog.records if "samples:" in record.message]
    assert lines[-1].startswith("epoch 2, 1,100 samples: fid ") and "(real " in lines[-1]
    assert all(line.endswith("; judge stub 000000000000, against shades, training split, 48 images") for line in lines)
    (text,) = events.Tensors("scores/text_summary")
    assert text.step == BATCHES
    facts = dict(re.findall(r"^\| `(.*?)` \| `(.*?)` \|$", text.tensor_proto.string_val[0].decode(), re.MULTILINE))
    assert facts.items() >= {
        "judge": "stub", "judge_sha256": "0" * 64, "num_samples": "1100", "control.samples": "test split",
        "reference": "shades, training split, 48 images", "control.fid": str(evaluation.control.values["fid"]),
    }.items()  # fmt: skip


def test_no_classes_are_drawn_where_the_extractor_knows_those_of_other_data(tmp_path, monkeypatch):
    monkeypatch.setattr(Stub, "classifies_data", False)
    evaluated(small_gan(), tmp_path, callbacks=[Alarms()], logger=TensorBoard(tmp_path, name="", version=""))
    scalars, events = curves(tmp_path)
    assert not events.Tags()["histograms"]
    assert {"metrics/fid", "metrics/variety", "alarm/dead_generator"} <= scalars.keys()
    assert not {"metrics/class_kl", "metrics/class_excess", "alarm/mode_collapse"} & scalars.keys()


def test_best_checkpoint_is_the_one_of_the_lowest_fid(tmp_path, scored):
    scored.fids = [3.0, 1.0, 2.0]
    best = ModelCheckpoint(
        tmp_path / "checkpoints", filename="best", monitor="metrics/fid", mode="min", enable_version_counter=False
    )
    evaluated(small_gan(), tmp_path, 3, callbacks=[best], enable_checkpointing=True)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["best.ckpt"]
    checkpoint = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2 * BATCHES and best.best_model_score == 1


@pytest.mark.parametrize(("every", "expected"), [(1, 3), (2, 6)])
def test_early_stopping_by_fid_is_obeyed(tmp_path, scored, every, expected):
    scored.fids = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    stop = EarlyStopping(monitor="metrics/fid", mode="min", patience=2)
    trainer = evaluated(small_gan(), tmp_path, 8, every=every, callbacks=[stop])
    assert trainer.current_epoch == expected and len(scored) == 3


def test_validate_scores_a_trained_gan_again(tmp_path):
    gan, evaluation = small_gan(), Evaluation(Stub())
    trainer = evaluated(gan, tmp_path, evaluation=evaluation, callbacks=[Alarms()])
    first = dict(evaluation.scores.values)
    (again,) = trainer.validate(gan, shades(tmp_path), verbose=False)
    assert {name: again[f"metrics/{name}"] for name in first} == pytest.approx(first)


def test_after_training_the_trainer_is_as_it_was_and_counts_the_epochs_done(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    gan = small_gan()
    trainer = evaluated(gan, tmp_path, 3, every=2)
    assert trainer.check_val_every_n_epoch == 2
    trainer.validate(gan, shades(tmp_path), verbose=False)
    lines = [record.message for record in caplog.records if "samples:" in record.message]
    assert [line.split(",")[0] for line in lines] == ["epoch 2", "epoch 3", "epoch 3"]


def test_a_trainer_stopped_by_max_steps_is_as_it_was(tmp_path):
    assert evaluated(small_gan(), tmp_path, -1, every=2, max_steps=4).check_val_every_n_epoch == 2


def test_validate_works_without_training_before(tmp_path):
    gan = small_gan()
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        callbacks=[Evaluation(Stub())],
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    (found,) = trainer.validate(gan, shades(tmp_path), verbose=False)
    assert found["metrics/fid"] > 0


# --- The real config -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def idx_data(tmp_path_factory):
    """More test images than in the fixture of that name: the control needs 512."""
    return idx_files.write(tmp_path_factory.mktemp("idx"), test=600)


JUDGED = ("metrics=judge", "metrics.num_samples=600", "metrics.cache=null")


def test_a_run_with_the_judge_scores_and_keeps_its_best(compose, tmp_path):
    whole = ("trainer.limit_train_batches=2", "trainer.limit_val_batches=2")
    main(compose(*JUDGED, *whole, "trainer.log_every_n_steps=1"))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    record = json.loads((tmp_path / "metrics.json").read_text())
    scalars, _ = curves(tmp_path)
    (point,) = scalars["metrics/fid"]
    assert point == (record["iterations"], pytest.approx(record["metrics/fid"], rel=1e-6))
    assert {f"metrics/{name}" for name in ("kid", "precision", "recall", "coverage", "memorised")} <= record.keys()
    scored = record["scored"]
    control = scored.pop("control")
    assert scored == {
        "iteration": record["iterations"],
        "samples": "generated",
        "num_samples": 600,
        "reference": "mnist, training split, 512 images",
        "judge": "mnist",
        "judge_sha256": load_judge("mnist").sha256,
        "judge_accuracy": load_judge("mnist").test_accuracy,
    }
    assert (control["samples"], control["num_samples"]) == ("test split", 600)
    assert {f"metrics/{name}" for name in control} - {"metrics/samples", "metrics/num_samples"} == {
        tag for tag in record if tag.startswith("metrics/")
    }
    assert 0 < control["fid"] < record["metrics/fid"]


def test_what_was_scored_is_the_last_evaluation_and_absent_without_one(compose, tmp_path):
    """Two epochs of four iterations, of which the first is scored; stopped before the second is."""
    plain = ("trainer.check_val_every_n_epoch=1", "trainer.log_every_n_steps=1", "callbacks.pictures=null")
    main(compose(*JUDGED, *plain, "+callbacks.stop._target_=test_evaluation.Stop", folder=tmp_path / "stopped"))
    record = json.loads((tmp_path / "stopped" / "metrics.json").read_text())
    assert record["iterations"] == 6 and record["scored"]["iteration"] == 4
    main(compose(*plain, "metrics=none", "trainer.max_epochs=1", folder=tmp_path / "none"))
    record = json.loads((tmp_path / "none" / "metrics.json").read_text())
    assert "scored" not in record and not any(tag.startswith("metrics/") for tag in record)


class Break(Callback):
    """Ends the run in the middle of its second epoch, as a second Ctrl-C or an error does."""

    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, trainer, gan, *_):
        if gan.global_step == 6:
            raise {"KeyboardInterrupt": KeyboardInterrupt, "OSError": OSError}[self.error]("of the test")


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "OSError"])
def test_a_run_that_is_broken_off_keeps_the_scores_it_had(compose, tmp_path, error):
    settings = ("trainer.check_val_every_n_epoch=1", "trainer.log_every_n_steps=1", "callbacks.pictures=null")
    broken = f"+callbacks.stop={{_target_:test_evaluation.Break,error:{error}}}"
    with pytest.raises((KeyboardInterrupt, OSError)):
        main(compose(*JUDGED, *settings, broken))
    state = run_state(tmp_path)
    assert state.metrics["scored"]["iteration"] == 4 and state.score("metrics/fid") > 0
    assert state.name in ("killed", "waiting") and not state.is_final


@pytest.mark.parametrize(
    "override",
    [
        *("trainer.max_epochs=0", "trainer.max_steps=0", "trainer.limit_train_batches=0"),
        "+trainer.max_time=00:00:00:00",
        *(
            "trainer.check_val_every_n_epoch=0",
            "trainer.check_val_every_n_epoch=-1",
            "trainer.check_val_every_n_epoch=x",
        ),
    ],
)
def test_an_end_before_the_start_and_scores_that_never_come_are_refused(compose, override):
    with pytest.raises(ValueError, match=f"^{override.lstrip('+')}(:| must be)"):
        main(compose(override))


class Stop(Callback):
    """Ends the run in the middle of its second epoch, as Ctrl-C does."""

    def on_train_batch_end(self, trainer, gan, *_):
        if gan.global_step == 6:
            trainer.should_stop, trainer.limit_val_batches = True, 0


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("metrics.num_samples=100", "metrics.num_samples=100 samples are too few for the covariance of 128 features"),
        ("metrics.num_samples=0", "metrics.num_samples=0 samples are too few for the covariance of 128 features"),
    ],
)
def test_too_few_samples_are_refused_before_the_first_iteration(compose, monkeypatch, override, line):
    monkeypatch.setattr("gan_lightning.gan.GAN.training_step", lambda *_: pytest.fail("trains"))
    with pytest.raises(ValueError, match=f"^{re.escape(line)}.*; give at least 512$"):
        main(compose(*JUDGED, override))


@pytest.mark.parametrize("limit", ["1", "0.5"])
def test_a_limited_validation_looks_at_as_few_real_images_says_so_and_caches_nothing(compose, tmp_path, caplog, limit):
    main(compose(*JUDGED, f"trainer.limit_val_batches={limit}", f"metrics.cache={tmp_path / 'cache'}"))
    assert f"limit_val_batches={limit} of metrics.num_samples=600: 500 samples, against 500 real images" in caplog.text
    scored = json.loads((tmp_path / "metrics.json").read_text())["scored"]
    assert scored["reference"] == "mnist, training split, 500 of 512 images" and scored["num_samples"] == 500
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("override", ["trainer.limit_val_batches=0", "+trainer.fast_dev_run=true"])
def test_a_run_that_draws_no_samples_or_is_a_trial_is_not_scored(compose, tmp_path, override):
    main(compose(*JUDGED, "trainer.log_every_n_steps=1", override))
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["iterations"] >= 1 and "scored" not in record and "metrics/fid" not in record


STOP = "+callbacks.stop={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:metrics/fid,mode:min,patience:2}"


@pytest.mark.parametrize(("every", "epochs"), [(1, 4), (2, 8)])
def test_a_run_stops_early_where_the_config_says_so_and_says_why(compose, tmp_path, scored, caplog, every, epochs):
    caplog.set_level(logging.INFO)
    scored.fids = [3.0, 1.0, 2.0, 2.0, 0.5, 0.5]
    often = (f"trainer.check_val_every_n_epoch={every}", "trainer.max_epochs=12", "trainer.log_every_n_steps=1")
    main(compose(*JUDGED, *often, "trainer.limit_train_batches=1", "callbacks.pictures=null", STOP))
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert len(scored) == 4 and record["iterations"] == epochs  # of one iteration each
    assert record["metrics/fid"] == 2 and record["scored"]["iteration"] == epochs
    saved = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert saved["global_step"] == 2 * every
    assert "ended early: early stopping: Monitored metric metrics/fid did not improve" in caplog.text


SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "callbacks.pictures=null")


@pytest.mark.parametrize("overrides", [["metrics=none"], [*JUDGED, "trainer.max_epochs=3"]], ids=["none", "judge"])
def test_last_checkpoint_is_written_after_every_epoch_whatever_is_scored(compose, tmp_path, overrides):
    """Lightning's ModelCheckpoint waits for a validation where check_val_every_n_epoch is not 1."""
    config = compose(*SHORT, "trainer.log_every_n_steps=1", "trainer.check_val_every_n_epoch=10", *overrides)
    saved = []

    class Look(Callback):
        def on_train_epoch_start(self, trainer, gan):
            saved.append((tmp_path / "checkpoints" / "last.ckpt").is_file())

    trainer = build_trainer(config, Look())
    trainer.fit(build_gan(config), instantiate(config.data))
    saved.append((tmp_path / "checkpoints" / "last.ckpt").is_file())
    assert saved == [False] + [True] * config.trainer.max_epochs


@pytest.mark.parametrize("override", ["callbacks.scalars=null", "trainer.log_every_n_steps=0"])
def test_a_run_with_the_judge_does_without_curves(compose, tmp_path, override):
    main(compose(*JUDGED, *SHORT, "trainer.log_every_n_steps=1", override))
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()


# --- Numbers -------------------------------------------------------------------------------------------------


def test_a_stub_tells_the_shades_apart(tmp_path):
    data = shades(tmp_path)
    reference = load_reference("shades", data.images(), data.images("test"), Stub(), None)
    assert torch.equal(score(data.images(), reference).classes, data.labels())
