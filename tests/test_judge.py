"""The judge: training, its file, and features that depend on nothing but the image."""

import json

import pytest
import torch
from torch import Tensor

from gan_lightning.metrics import judge as judge_module
from gan_lightning.metrics.classifier import accuracy, move_a_little, shift_and_mirror, train_classifier
from gan_lightning.metrics.judge import JUDGES, Judge, extract, load_judge, save_judge
from gan_lightning.train_judge import train_and_save


def bars(num: int, seed: int, channels: int = 1, size: int = 12) -> tuple[Tensor, Tensor]:
    """Images of three classes: a bar at the top, in the middle, at the bottom; with noise."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (num,), generator=draw)
    images = torch.randint(0, 60, (num, channels, size, size), generator=draw, dtype=torch.uint8)
    for label in range(3):
        images[labels == label, :, label * size // 3 : label * size // 3 + size // 4] += 150
    return images, labels


def untrained(image_shape: tuple[int, int, int] = (1, 12, 12), width: int = 16) -> Judge:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Judge("bars", image_shape, 3, width).eval()


@pytest.fixture(scope="module")
def trained() -> Judge:
    return train_classifier(*bars(600, 0), *bars(200, 1), name="bars", epochs=3, batch_size=32, width=16)


@pytest.mark.parametrize("image_shape", [(1, 28, 28), (3, 32, 32), (1, 12, 12), (2, 13, 20)])
def test_any_channels_and_size_give_features_and_logits(image_shape):
    features, logits = untrained(image_shape)(torch.rand(5, *image_shape) * 2 - 1)
    assert features.shape == (5, 16) and logits.shape == (5, 3)
    assert features.min() >= 0


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"takes images of shape \(1, 12, 12\), got \(3, 12, 12\)"):
        untrained()(torch.zeros(2, 3, 12, 12))
    with pytest.raises(ValueError, match="12x12 pixels or more"):
        Judge("tiny", (1, 8, 8), 10)


def test_folding_batch_norm_leaves_the_function_as_it_is():
    torch.manual_seed(0)
    judge = Judge("bars", (1, 12, 12), 3, 16, batch_norm=True)
    images = torch.rand(64, 1, 12, 12) * 2 - 1
    judge(images)  # moves the running statistics
    for expected, found in zip(judge.eval()(images), judge.fused()(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not any("BatchNorm" in type(layer).__name__ for layer in judge.fused().modules())


def test_extraction_does_not_depend_on_the_batch_size():
    images = bars(101, 0)[0]
    expected = extract(untrained(), images, batch_size=101)
    for batch_size in (1, 7, 50):
        for found, value in zip(extract(untrained(), images, batch_size), expected, strict=True):
            torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5)


def test_extraction_is_float32_within_a_bfloat16_run():
    images = bars(20, 0)[0]
    expected = extract(untrained(), images)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = extract(untrained(), images)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_training_learns_and_notes_the_test_accuracy(trained):
    assert trained.test_accuracy == accuracy(trained, *bars(200, 1)) > 0.95


def test_features_are_scaled_to_mean_square_one(trained):
    features, _ = extract(trained, bars(600, 0)[0])
    assert features.double().square().mean().item() == pytest.approx(1, rel=1e-4)


def test_training_follows_from_its_seed_alone():
    def train(seed: int) -> Tensor:
        judge = train_classifier(*bars(128, 0), *bars(50, 1), name="bars", seed=seed, epochs=1, batch_size=32, width=8)
        return torch.cat([weight.flatten() for weight in judge.state_dict().values()])

    before = torch.get_rng_state()
    first = train(0)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(first, train(0))
    assert not torch.equal(first, train(1))


def test_distortion_of_zero_changes_nothing_and_otherwise_stays_in_range():
    images = torch.rand(4, 2, 12, 16) * 2 - 1
    draw = torch.Generator().manual_seed(0)
    torch.testing.assert_close(move_a_little(images, draw, 0, 0, 0), images, rtol=1e-4, atol=1e-4)
    moved = move_a_little(images, draw)
    assert moved.abs().max() <= 1 and not torch.allclose(moved, images)


def test_shifted_and_mirrored_images_hold_the_pixels_of_the_original():
    image = torch.arange(48.0).view(1, 1, 6, 8)
    moved = shift_and_mirror(image.expand(200, 1, 6, 8), torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")[0, 0]
    crops = [padded[row : row + 6, column : column + 8] for row in range(3) for column in range(3)]
    possible = {tuple(crop.flatten().tolist()) for plain in crops for crop in (plain, plain.flip(1))}
    assert {tuple(one.flatten().tolist()) for one in moved} == possible


def test_an_unknown_distortion_is_refused():
    with pytest.raises(ValueError, match="distortion=blur must be one of affine, shift"):
        train_classifier(*bars(40, 0), *bars(20, 1), name="bars", batch_size=32, distortion="blur")


def test_a_saved_judge_comes_back_the_same(trained, tmp_path):
    sha256 = save_judge(trained, tmp_path / "bars.safetensors")
    assert len(sha256) == 64
    before = torch.get_rng_state()
    again = load_judge("bars", tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert (again.name, again.sha256, again.test_accuracy) == ("bars", sha256, trained.test_accuracy)
    images = bars(30, 2)[0]
    torch.testing.assert_close(extract(again, images), extract(trained, images), rtol=1e-5, atol=1e-5)
    assert again.recipe == {"seed": 0, "epochs": 3, "augment": "affine"}
    assert save_judge(again, tmp_path / "again.safetensors") == sha256
    assert not any(weight.requires_grad for weight in again.parameters()) and not again.training


def test_a_damaged_shipped_judge_is_refused_by_its_hash(trained, tmp_path, monkeypatch):
    path = tmp_path / "bars.safetensors"
    sha256 = save_judge(trained, path)
    (tmp_path / "pins.json").write_text(json.dumps({"bars": {"sha256": sha256}}))
    monkeypatch.setattr(judge_module, "JUDGES", tmp_path)
    assert load_judge("bars").sha256 == sha256
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # one bit of one weight
    path.write_bytes(content)
    with pytest.raises(
        ValueError,
        match=r"bars\.safetensors is damaged: its SHA-256 is [0-9a-f]{16}…, not " + sha256[:16] + "…; install it again",
    ):
        load_judge("bars")


def test_a_judge_of_ones_own_is_checked_by_its_hash_too(tmp_path):
    path = tmp_path / "bars.safetensors"
    train_and_save(Data(), "stripes", out=path, epochs=1, report=lambda line: None)
    assert load_judge(path).sha256 == load_judge("bars", tmp_path).sha256
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    for judge in path, "bars":
        with pytest.raises(ValueError, match=r"bars\.safetensors is damaged: .*; train it again"):
            load_judge(judge, tmp_path)
    (tmp_path / "pins.json").unlink()
    assert load_judge(path).name == "stripes"  # of one from elsewhere nothing is known


def test_files_that_hold_no_judge_are_refused(tmp_path):
    path = tmp_path / "cut.safetensors"
    save_judge(untrained(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is not a judge, or damaged"):
        load_judge(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not a judge, or damaged"):
        load_judge(path)


def test_a_data_set_without_a_judge_names_the_command_that_trains_one(tmp_path):
    with pytest.raises(ValueError, match=r"No judge for 'cifar10'.* gan_lightning\.train_judge .* data\.name=cifar10"):
        load_judge("cifar10", tmp_path)


class Data:
    def images(self, split: str = "train") -> Tensor:
        return bars(200, int(split == "test"))[0]

    def labels(self, split: str = "train") -> Tensor:
        return bars(200, int(split == "test"))[1]


def test_train_and_save_makes_a_judge_that_is_found_by_name(tmp_path):
    lines: list[str] = []
    trained = train_and_save(Data(), "bars", out=tmp_path / "bars.safetensors", epochs=1, report=lines.append)
    assert load_judge("bars", tmp_path).sha256 == trained.sha256
    pinned = json.loads((tmp_path / "pins.json").read_text())
    assert pinned == {"bars": {"sha256": trained.sha256, "test_accuracy": trained.test_accuracy}}
    assert "epoch 1/1" in lines[0] and "test accuracy" in lines[-1]
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        train_and_save(Data(), "bars", out=tmp_path / "bars")


@pytest.mark.parametrize(("name", "least"), [("mnist", 0.995), ("fashion_mnist", 0.925)])
def test_shipped_judges_are_small_and_carry_their_accuracy(name, least):
    judge = load_judge(name)
    pin = json.loads((JUDGES / "pins.json").read_text())[name]
    assert (judge.name, judge.image_shape, judge.num_classes) == (name, (1, 28, 28), 10)
    assert judge.test_accuracy == pin["test_accuracy"] >= least
    assert judge.sha256 == pin["sha256"] and not judge.recipe  # their files have no word of it
    assert (JUDGES / f"{name}.safetensors").stat().st_size < 2e6
