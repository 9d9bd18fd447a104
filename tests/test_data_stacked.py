"""Stacks of three digits: drawn on the fly, reproducible, and of the frequencies that MNIST's digits have."""

import json
from itertools import chain

import idx_files
import pytest
import torch
from test_data_module import fit
from test_metrics_modes import DIGITS, STACKS

from gan_lightning.data.stacked import StackedDataModule, StackLoader, stack
from gan_lightning.evaluate import main as evaluate
from gan_lightning.metrics.judge import Judge, StackedJudge
from gan_lightning.metrics.modes import modes
from gan_lightning.metrics.scores import load_reference, score
from gan_lightning.train import main as train

SETTINGS = {"image_shape": (3, 2, 2), "num_classes": 1000, "num_test": 500, "batch_size": 8}


class Digits:
    """Image i of 2x2 pixels has the value i; labels are its last digit. A Reader without files."""

    def __init__(self, num_images=80):
        self.num_images = num_images

    def fetch(self, root): ...

    def read(self, root, split):
        numbers = torch.arange(self.num_images if split == "train" else 50)
        return numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous(), numbers % 10


def module(tmp_path, **settings):
    return StackedDataModule(tmp_path, Digits(), **SETTINGS | settings)


def loader(**settings):
    images, labels = Digits().read(None, "train")
    return StackLoader(
        images=images, labels=labels, **{"batch_size": 8, "num_channels": 3, "num_classes": 10} | settings
    )


def rows(batches):
    """Which image is in each channel of each stack."""
    return [images[:, :, 0, 0].tolist() for images, _ in batches]


# --- What a stack is -----------------------------------------------------------------------------------------


def test_stack_of_the_digits_1_2_and_3_is_of_class_123():
    images, labels = Digits().read(None, "train")
    stacks, classes = stack(images, labels, torch.tensor([[1, 2, 3], [70, 69, 18]]), num_classes=10)
    assert stacks.shape == (2, 3, 2, 2) and stacks.dtype == torch.uint8
    assert stacks[:, :, 1, 1].tolist() == [[1, 2, 3], [70, 69, 18]]
    assert classes.tolist() == [123, 98] and classes.dtype == torch.int64


def test_labels_stay_with_their_stacks():
    for images, labels in loader():
        digits = images[:, :, 0, 0].long() % 10
        assert torch.equal(labels, digits @ torch.tensor([100, 10, 1]))


# --- Their order ---------------------------------------------------------------------------------------------


def test_epoch_shows_each_digit_once_in_every_channel_and_in_other_orders():
    batches = loader()
    first, second = (list(chain(*rows(batches))) for _ in range(2))
    for epoch in first, second:
        channels = list(zip(*epoch, strict=True))
        assert all(sorted(channel) == list(range(80)) for channel in channels)
        assert len(set(channels)) == 3
    assert first != second


def test_training_draws_from_the_module_as_from_the_loader(tmp_path):
    recorder = fit(tmp_path, module(tmp_path), max_epochs=2)
    assert recorder.batches == [labels.tolist() for batches in [loader()] for _ in range(2) for _, labels in batches]


# --- The stacks that scores look at --------------------------------------------------------------------------


def test_stacks_of_a_split_never_change(tmp_path):
    first, second = module(tmp_path), module(tmp_path, seed=7)
    for split, num in ("train", 80), ("test", 500):
        assert first.images(split).shape == (num, 3, 2, 2)
        assert torch.equal(first.images(split), second.images(split))
        assert torch.equal(first.labels(split), second.labels(split))
    assert not torch.equal(first.images()[:, 0], first.images()[:, 1])
    assert first.images("test").max() < 50  # of its own digits


def test_modes_are_as_frequent_as_mnists_digits_make_them(tmp_path):
    """Images of MNIST's frequencies; 26,000 stacks of an epoch against the product of its channels' shares."""

    class Mnist(Digits):
        def read(self, root, split):
            labels = torch.repeat_interleave(torch.arange(10), DIGITS.long())
            return torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels

    data = StackedDataModule(tmp_path, Mnist(), **SETTINGS | {"num_test": 26_000, "batch_size": 26_000})
    fixed = data.labels("train").bincount(minlength=1000).view(10, 10, 10)
    for others in (1, 2), (0, 2), (0, 1):
        assert torch.equal(fixed.sum(dim=others), DIGITS.long())
    (_, drawn), _ = data.train_dataloader()
    for labels in drawn, data.labels("test"):
        found = modes(labels.bincount(minlength=1000), STACKS)
        assert found.found == 1000 and found.kl == pytest.approx(0.0236, abs=0.004) and abs(found.kl_data) < 0.004


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 100}, r"^num_classes=100 must be .* to the power of 3, .*; try 1000"),
        ({"num_classes": 0}, r"^num_classes=0 must be"),
        ({"image_shape": (1, 2, 2)}, r"^image_shape=\[1, 2, 2\]: .* two channels or more; try data=mnist"),
        ({"image_shape": (2, 2, 2)}, r"^num_classes=1000 must be .* power of 2, .*\[2, 2, 2\]; try 100"),
    ],
)
def test_classes_that_do_not_fit_the_channels_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        module(tmp_path, **settings)


def test_image_shape_of_other_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data.image_shape=\[3, 4, 4\] is not the shape .*; try \[3,2,2\]"):
        module(tmp_path, image_shape=(3, 4, 4)).setup("fit")


# --- Scores --------------------------------------------------------------------------------------------------

FEW = ("data.num_test=1600", "metrics.cache=null")  # 384 features need four times as many


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_data_set_chooses_its_score_and_a_typed_choice_wins(compose, command):
    config = compose("data=stacked_mnist", config_name=command, small=False)
    assert config.metrics.num_samples == 26_000 and config.metrics.extractor.judge == "mnist"
    assert not compose("metrics=none", "data=stacked_mnist", config_name=command, small=False).metrics


def test_score_of_stacks_counts_modes_beside_those_of_real_ones():
    """Two channels of three classes, by a judge of random weights: what it counts is what it sees."""
    torch.manual_seed(0)
    judge = StackedJudge(Judge("toy", (1, 12, 12), num_classes=3, width=4).eval().requires_grad_(False), num_channels=2)
    real, held_out, fake = (torch.randint(256, (200, 2, 12, 12), dtype=torch.uint8) for _ in range(3))
    reference = load_reference("toy", real, held_out, judge, cache=None)
    scores, control = score(fake, reference), reference.control(200)
    assert scores.values["modes"] == sum(count > 0 for count in scores.class_counts) and len(scores.class_counts) == 9
    expected = modes(torch.tensor(scores.class_counts), reference.class_counts)
    assert (scores.values["modes_kl"], scores.values["modes_kl_data"]) == (expected.kl, expected.kl_data)
    assert {"modes", "modes_kl", "modes_kl_data"} <= control.values.keys()
    assert scores.about["judge"] == "toy, channel by channel" and "judge_accuracy" in scores.about


@pytest.mark.slow
def test_run_is_scored_by_its_modes_without_being_asked(compose, tmp_path, caplog):
    """Two iterations of the real config; then the command that evaluates it, which takes as many samples."""
    from omegaconf import OmegaConf

    config = compose(
        *("data=stacked_mnist", "trainer=debug", "model.generator.hidden=[16]", "model.discriminator.hidden=[16]"),
        *(
            *idx_files.write(tmp_path / "digits", train=1600, test=100),
            *FEW,
            "metrics.num_samples=1600",
            "trainer.limit_train_batches=2",
            "conditioning=projection",
        ),
        *(
            "trainer.limit_val_batches=1.0",
            "trainer.log_every_n_steps=1",
            "callbacks.pictures.num_images=4",
            "callbacks.pictures.nrow=2",
        ),
        small=False,
    )
    with caplog.at_level("INFO"):
        train(config)
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["scored"]["judge_accuracy"] == 0.9964 and record["scored"]["num_samples"] == 1600
    assert 1 <= record["metrics/modes"] <= 1000 and record["metrics/modes_kl"] > 0.1
    control = record["scored"]["control"]
    assert 0 <= control["conditional_accuracy"] <= 1
    assert f"modes {record['metrics/modes']:.0f} (real {control['modes']:.0f})" in caplog.text

    (tmp_path / ".hydra").mkdir()
    config.metrics.num_samples = 10_001  # more than the default
    OmegaConf.save(config, tmp_path / ".hydra" / "config.yaml")
    evaluate(compose(f"ckpt={tmp_path}", "num_samples=1600", "metrics.cache=null", config_name="evaluate"))
    found = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())["generated"]
    assert found["modes"] == record["metrics/modes"] == sum(count > 0 for count in found["class_counts"])
    assert len(found["class_counts"]) == 1000
    assert len(list((tmp_path / "evaluation").glob("*.png"))) == 3
