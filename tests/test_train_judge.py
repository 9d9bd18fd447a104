import json
import os

import pytest
import torch

from gan_lightning.data import ImageDataModule
from gan_lightning.metrics.judge import extract, load_judge
from gan_lightning.train_judge import main, train_and_save


@pytest.fixture
def train_judge(compose, idx_data):
    return lambda *overrides: main(compose(*idx_data, "epochs=1", *overrides, config_name="train_judge"))


@pytest.fixture
def own_judges(tmp_path, monkeypatch):
    """The folder where judges of users' own data sets are kept, empty."""
    monkeypatch.setenv("GAN_LIGHTNING_DATA", str(tmp_path))
    return tmp_path / "judges"


def test_a_file_that_is_no_safetensors_is_refused_before_training(train_judge, tmp_path, monkeypatch):
    monkeypatch.setattr("gan_lightning.metrics.classifier.train_classifier", lambda *_, **__: pytest.fail("trains"))
    with pytest.raises(ValueError, match=r"out=.*judge\.pt must end in \.safetensors"):
        train_judge(f"out={tmp_path}/judge.pt")


def test_images_of_one_class_are_refused_before_training(tmp_path):
    data = ImageDataModule.from_tensors(torch.zeros(20, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"data\.root=.*all images are of one class.*folders by class"):
        train_and_save(data, "plain", out=tmp_path / "plain.safetensors")


def test_stacks_are_judged_by_the_judge_of_their_channels(train_judge):
    with pytest.raises(ValueError, match=r"^data.name=stacked_mnist: stacks need no judge .*: metrics=stacked_mnist$"):
        train_judge("data=stacked_mnist")


def test_the_judge_is_written_where_out_says_and_judges(train_judge, tmp_path, compose):
    out = tmp_path / "new" / "digits.safetensors"
    train_judge(f"out={out}", "data.name=digits")
    judge = load_judge(out)
    assert judge.name == "digits" and judge.image_shape == (1, 28, 28) and judge.num_classes == 10
    assert 0 <= judge.test_accuracy <= 1
    features, logits = extract(judge, torch.zeros(2, 1, 28, 28, dtype=torch.uint8))
    assert features.shape == (2, 128) and logits.shape == (2, 10)
    assert judge.recipe == {"seed": 0, "epochs": 1, "augment": "affine"}
    assert json.loads((out.parent / "pins.json").read_text()).keys() == {"digits"}


def test_without_out_the_judge_is_found_by_the_name_of_the_data_set(train_judge, own_judges):
    train_judge("data.name=my_digits")
    assert {path.name for path in own_judges.iterdir()} == {"my_digits.safetensors", "pins.json"}
    assert load_judge("my_digits", own_judges).name == "my_digits"


def test_beside_pins_the_hash_and_accuracy_are_noted(train_judge, tmp_path):
    (tmp_path / "pins.json").write_text('{"other": {"sha256": "0"}}')
    train_judge(f"out={tmp_path}/mnist.safetensors")
    judge, pins = load_judge(tmp_path / "mnist.safetensors"), json.loads((tmp_path / "pins.json").read_text())
    assert pins["other"] == {"sha256": "0"}
    assert pins["mnist"] == {"sha256": judge.sha256, "test_accuracy": judge.test_accuracy}


def test_the_same_seed_trains_the_same_judge_and_says_how_good_it_is(compose, idx_data, tmp_path):
    from hydra.utils import instantiate

    data, lines = instantiate(compose(*idx_data, config_name="train_judge").data), []
    judges = [
        train_and_save(data, "digits", out=tmp_path / f"{n}.safetensors", seed=seed, epochs=1, report=lines.append)
        for n, seed in enumerate((0, 0, 1))
    ]
    assert judges[0].sha256 == judges[1].sha256 != judges[2].sha256
    assert lines[0].startswith("epoch 1/1: loss ")
    assert lines[1].startswith(f"{tmp_path}/0.safetensors: test accuracy {judges[0].test_accuracy:.2%}, SHA-256 ")


@pytest.mark.parametrize("kind", ["folder", "pipe", "below a file"])
def test_what_the_judge_would_replace_is_refused_before_it_is_trained(compose, idx_data, tmp_path, kind):
    path = tmp_path / "judge.safetensors"
    make = {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "below a file": path.touch}
    make[kind]()
    out = path / "mine.safetensors" if kind == "below a file" else path
    with pytest.raises(ValueError, match=f"^out={out}.* (is a folder|is a device or a pipe|is not a folder)"):
        train_and_save(None, "mine", out=out)
    assert [file.name for file in tmp_path.rglob("*")] == ["judge.safetensors"]


def test_the_command_says_in_one_line_what_is_wrong(run_cli, idx_data):
    result = run_cli("out=judge.bin", *idx_data, module="gan_lightning.train_judge")
    assert result.returncode == 1
    assert result.stderr.strip() == "error: out=judge.bin must end in .safetensors"


def test_a_judge_that_would_learn_nothing_is_refused(train_judge, tmp_path):
    with pytest.raises(ValueError, match=r"^epochs=0 must be a whole number, 1 or more$"):
        train_judge("epochs=0", f"out={tmp_path}/judge.safetensors")
    assert not (tmp_path / "judge.safetensors").exists()
