import json
import shutil
import sys
from types import ModuleType

import idx_files
import pytest
import torch
from hydra.errors import InstantiationException
from test_metrics_figures import size

from gan_lightning.evaluate import main
from gan_lightning.images import to_uint8
from gan_lightning.metrics.judge import load_judge

SETTINGS = ("num_samples=600", "metrics.cache=null")
FIGURES = {"classes.png": (302, 302), "nearest.png": (482, 242), "class_histogram.png": (760, 240)}
ROWS = (
    *("fid", "kid", "kid_stderr", "precision", "recall", "density", "coverage", "inception_score"),
    *("class_kl", "classes_missing", "class_excess", "sure_share", "variety", "memorised", "nearest_ratio"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, idx_data):
    """A run folder below outputs/ of an otherwise empty folder, after two iterations."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

    from gan_lightning.files import conf_dir
    from gan_lightning.train import main as train

    folder = tmp_path_factory.mktemp("project") / "outputs" / "mlp-mnist" / "some-run"
    overrides = ["trainer=debug", *idx_data, "metrics=none", "trainer.max_epochs=1", "trainer.limit_train_batches=2"]
    overrides += ["trainer.log_every_n_steps=1", "trainer.check_val_every_n_epoch=1"]
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = hydra.compose("train", [*overrides, "callbacks.pictures=null"], return_hydra_config=True)
    config.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config["hydra"]
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    train(config)
    return folder


@pytest.fixture
def evaluate(compose):
    return lambda *overrides: main(compose(*SETTINGS, *overrides, config_name="evaluate"))


@pytest.fixture(scope="module")
def command(run):
    """`python -m gan_lightning.evaluate` in the folder that has outputs/ in it: what it prints, and what it leaves."""
    import os
    import subprocess
    import sys

    from conftest import ROOT

    return subprocess.run(
        [sys.executable, "-m", "gan_lightning.evaluate", *SETTINGS],
        cwd=run.parents[2],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_the_newest_run_is_scored_in_a_table_with_a_control(command):
    assert command.returncode == 0, command.stderr
    lines = command.stdout.splitlines()
    text = " ".join(command.stdout.split())  # titles are wrapped to the table's width
    assert "600 samples against mnist, training split, 512 images" in text
    assert f"judge mnist, SHA-256 {load_judge('mnist').sha256[:12]}; control: 600 images of the test split" in text
    assert "the judge is right on 99.64%" in text
    heading = next(line for line in lines if "generated" in line and "ratio" in line)
    assert heading.replace("┃", " ").split() == ["score", "generated", "control", "ratio"]
    rows = {cells[0]: cells[1:] for line in lines if "│" in line and (cells := line.replace("│", " ").split())}
    assert tuple(rows) == ROWS
    generated, control, ratio = map(float, rows["fid"])
    assert generated > control > 0 and ratio == pytest.approx(generated / control, rel=1e-2)
    assert rows["kid"][2] == rows["kid_stderr"][2] == "-"  # KID may be 0 or below


def test_the_figures_and_the_record_lie_in_the_run_folder_and_nowhere_else(command, run):
    assert "evaluation.json and figures are in" in command.stdout + command.stderr
    assert {path.name for path in (run / "evaluation").iterdir()} == {"evaluation.json", *FIGURES}
    assert {name: size(run / "evaluation" / name) for name in FIGURES} == FIGURES
    assert [path.name for path in run.parents[2].iterdir()] == ["outputs"]


def test_the_record_names_judge_reference_and_number_of_samples(command, run):
    record = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert record["checkpoint"].endswith("outputs/mlp-mnist/some-run/checkpoints/last.ckpt")
    for part, samples in ("generated", "generated"), ("control", "test split"):
        about = record[part]
        assert about["samples"] == samples and about["num_samples"] == 600
        assert about["reference"] == "mnist, training split, 512 images"
        assert (about["judge"], about["judge_sha256"]) == ("mnist", load_judge("mnist").sha256)
        assert sum(about["class_counts"]) == 600 and set(ROWS) <= about.keys()


def test_the_same_checkpoint_gives_the_same_numbers_in_another_process(command, run, evaluate, tmp_path):
    evaluate(f"ckpt={run}", f"out={tmp_path}/again")
    again = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    first = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert again["generated"] == first["generated"] and again["control"] == first["control"]


def test_the_record_and_the_figures_are_written_before_the_table(run, evaluate, tmp_path, monkeypatch):
    def gone(**_):
        raise BrokenPipeError

    monkeypatch.setattr("gan_lightning.terminal.printer", gone)
    with pytest.raises(BrokenPipeError):
        evaluate(f"ckpt={run}", f"out={tmp_path}/new")
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"evaluation.json", *FIGURES}


@pytest.mark.parametrize("name", ["file", "file/below", "link"])
def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_is_drawn(
    run, evaluate, tmp_path, monkeypatch, name
):
    monkeypatch.setattr("gan_lightning.runs.checkpoint.load_gan", lambda file: pytest.fail("work for nothing"))
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(ValueError, match=f"^out={tmp_path}/{name}.* is no folder; choose another place with out=…$"):
        evaluate(f"ckpt={run}", f"out={tmp_path}/{name}")


def test_a_checkpoint_outside_a_run_folder_needs_its_data_set_named(run, evaluate, idx_data, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    file = shutil.copy(run / "checkpoints" / "last.ckpt", tmp_path / "a" / "b" / "mine.ckpt")
    with pytest.raises(ValueError, match=r"^ckpt=.*mine\.ckpt is not in a run folder.*; add data=<name>$"):
        evaluate(f"ckpt={file}")
    evaluate(f"ckpt={file}", "data=mnist", *idx_data)
    first, second = (torch.load(path, weights_only=True) for path in (file, run / "checkpoints" / "last.ckpt"))
    assert first["global_step"] == second["global_step"] == 2
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == {"mine.ckpt", "evaluation"}  # not two above
    assert json.loads((tmp_path / "a" / "b" / "evaluation" / "evaluation.json").read_text())["checkpoint"] == str(file)


def test_the_seed_chooses_the_noise_and_that_of_a_training_is_number_zero(run, evaluate, tmp_path, monkeypatch):
    from gan_lightning.data.module import sample_blocks
    from gan_lightning.metrics import figures
    from gan_lightning.runs.checkpoint import load_gan

    drawn, records = [], []
    monkeypatch.setattr(figures, "draw", lambda images, *_: drawn.append(images))
    for number, seed in enumerate((0, 3, 3)):
        evaluate(f"ckpt={run}", f"seed={seed}", f"out={tmp_path}/{number}")
        records.append(json.loads((tmp_path / str(number) / "evaluation.json").read_text()))
    gan = load_gan(run)
    trained = torch.cat([gan.validation_step(block, 0)["images"] for block in sample_blocks(600)])
    assert torch.equal(drawn[0], to_uint8(trained))
    assert torch.equal(drawn[1], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert len(drawn[1].unique(dim=0)) == 600  # no block repeats another
    assert [record["seed"] for record in records] == [0, 3, 3]
    assert records[0]["generated"]["fid"] != records[1]["generated"]["fid"] == records[2]["generated"]["fid"]
    assert records[0]["control"] == records[1]["control"]


@pytest.mark.parametrize("seed", ["-1", "one", "0.5"])
def test_a_seed_that_is_no_whole_number_is_refused(run, evaluate, seed):
    with pytest.raises(ValueError, match=f"seed={seed} must be a whole number"):
        evaluate(f"ckpt={run}", f"seed={seed}")


def test_without_metrics_there_is_nothing_to_score_with(compose):
    with pytest.raises(ValueError, match=r"^metrics=none: there is nothing to score with; .* or try metrics=judge$"):
        main(compose("metrics=none", config_name="evaluate"))


def test_data_without_scores_of_its_own_says_what_to_add(run, compose):
    with pytest.raises(ValueError, match=r"^data=cifar10 has no scores .* add metrics=judge.* conf/data/cifar10.yaml"):
        main(compose(f"ckpt={run}", "data=cifar10", config_name="evaluate"))


def test_the_judge_that_the_run_was_scored_by_is_asked_unless_another_is_typed(run, evaluate, tmp_path):
    from omegaconf import OmegaConf

    shutil.copytree(run, tmp_path / "run")
    config = OmegaConf.load(run / ".hydra" / "config.yaml")
    config.metrics = {"num_samples": 600, "extractor": "${.own}", "own": {"_target_": "gan_lightning.terminal.own"}}
    OmegaConf.save(config, tmp_path / "run" / ".hydra" / "config.yaml")
    with pytest.raises(InstantiationException, match=r"gan_lightning\.terminal\.own"):
        evaluate(f"ckpt={tmp_path / 'run'}")
    with pytest.raises(ValueError, match="100 samples are too few"):
        evaluate(f"ckpt={tmp_path / 'run'}", "metrics=judge", "num_samples=100")


def test_too_few_samples_are_refused_with_the_number_needed(run, evaluate):
    with pytest.raises(ValueError, match=r"100 samples are too few .* give at least 512"):
        evaluate(f"ckpt={run}", "num_samples=100")


def test_too_many_samples_are_refused_before_any_is_drawn(run, evaluate):
    with pytest.raises(ValueError, match=r"num_samples=100000000 .* at most 1000000"):
        evaluate(f"ckpt={run}", "num_samples=100000000")


def test_a_test_split_too_small_for_a_control_is_named(run, evaluate, tmp_path):
    small = idx_files.write(tmp_path / "small", test=128)
    with pytest.raises(ValueError, match=r"test split of mnist has 128 images.* takes 512; .*metrics=none"):
        evaluate(f"ckpt={run}", "data=mnist", *small)


def test_data_without_a_judge_says_how_to_train_one(run, evaluate):
    with pytest.raises(Exception, match=r"No judge for 'unheard_of'.*gan_lightning\.train_judge"):
        evaluate(f"ckpt={run}", "metrics.extractor.judge=unheard_of")


@pytest.mark.parametrize(("scored_on", "expected"), [(None, 10_000), (5000, 10_000), (26_000, 26_000)])
def test_as_many_samples_are_drawn_as_while_training_but_ten_thousand_at_least(
    run, compose, monkeypatch, tmp_path, scored_on, expected
):
    from omegaconf import OmegaConf

    class Drawn(Exception):
        pass

    def draw(num_samples):
        raise Drawn(num_samples)

    config = OmegaConf.load(run / ".hydra" / "config.yaml")
    if scored_on:
        config.metrics = {"num_samples": scored_on}
    shutil.copytree(run, tmp_path / "run")
    OmegaConf.save(config, tmp_path / "run" / ".hydra" / "config.yaml")
    monkeypatch.setattr("gan_lightning.data.module.sample_blocks", draw)
    with pytest.raises(Drawn) as drawn:
        main(compose(f"ckpt={tmp_path}/run", "metrics.cache=null", config_name="evaluate"))
    assert drawn.value.args == (expected,)


def test_inceptions_scores_have_no_classes_of_the_data(run, evaluate, tmp_path, monkeypatch, capsys):
    """The composed config with a network of few features in place of Inception's."""

    class Network(torch.nn.Module):
        def __init__(self, name, features, feature_extractor_weights_path):
            super().__init__()
            assert features == ["2048", "logits_unbiased"]
            weights = torch.load(feature_extractor_weights_path, weights_only=True)
            self.features, self.logits = weights["features"], weights["logits"]

        def forward(self, images):
            assert images.dtype == torch.uint8 and images.shape[1:] == (3, 28, 28)
            features = images.flatten(1).float() @ self.features
            return features, features @ self.logits

    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.URL_INCEPTION_V3, module.FeatureExtractorInceptionV3 = "nowhere", Network
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("gan_lightning.metrics.inception.HASH_PREFIX", "")
    draw = torch.Generator().manual_seed(0)
    weights = {"features": torch.randn(3 * 784, 8, generator=draw) / 784, "logits": torch.randn(8, 40, generator=draw)}
    torch.save(weights, tmp_path / "weights.pth")
    evaluate(
        f"ckpt={run}", "metrics=inception", f"metrics.inception.weights={tmp_path}/weights.pth", f"out={tmp_path}/e"
    )

    assert {path.name for path in (tmp_path / "e").iterdir()} == {"evaluation.json", "nearest.png"}
    record = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    for part in "generated", "control":
        assert record[part]["judge"] == "inception-v3-2015-12-05" and len(record[part]["judge_sha256"]) == 64
        of_classes = {"class_counts", "class_kl", "classes_missing", "class_excess", "sure_share"}
        assert set(ROWS) - of_classes <= record[part].keys() and not of_classes & record[part].keys()
    assert record["generated"]["fid"] > record["control"]["fid"] > 0
    said = capsys.readouterr().out
    assert "judge inception-v3-2015-12-05" in said and "class_kl" not in said


@pytest.mark.parametrize(("typed", "judge"), [([], "fashion_mnist"), (["metrics=judge"], "mnist")])
def test_a_run_is_scored_by_the_judge_that_it_was_trained_with_unless_metrics_is_typed(
    run, evaluate, compose, tmp_path, typed, judge
):
    from omegaconf import OmegaConf

    config = OmegaConf.load(run / ".hydra" / "config.yaml")
    config.metrics = compose("metrics=judge", "metrics.extractor.judge=fashion_mnist").metrics
    shutil.copytree(run, tmp_path / "run")
    OmegaConf.save(config, tmp_path / "run" / ".hydra" / "config.yaml")
    evaluate(f"ckpt={tmp_path}/run", *typed)
    record = json.loads((tmp_path / "run" / "evaluation" / "evaluation.json").read_text())
    assert record["generated"]["judge"] == judge


def test_unconditional_generators_images_have_no_labels_to_learn_from(run, evaluate):
    with pytest.raises(
        ValueError, match=r"^train_on_synthetic=true: the generator of .* knows of no classes, .*; leave it"
    ):
        evaluate(f"ckpt={run}", "train_on_synthetic=true")
    with pytest.raises(ValueError, match=r"^train_on_synthetic=often must be true or false$"):
        evaluate(f"ckpt={run}", "train_on_synthetic=often")


def test_conditional_generator_is_scored_by_its_classes_and_by_who_learns_from_them(
    compose, evaluate, tmp_path, monkeypatch, capsys
):
    from omegaconf import OmegaConf

    from gan_lightning.metrics import train_on_synthetic
    from gan_lightning.train import main as train

    folder = tmp_path / "run"
    one = ("trainer.max_steps=1", "trainer.log_every_n_steps=1", "callbacks.pictures=null")
    config = compose("conditioning=concat", *one, folder=folder)
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")
    train(config)
    learned = []

    def learn(images, labels, *real, device):
        learned.append((images, labels, *real))
        return 0.25, 0.75

    monkeypatch.setattr(train_on_synthetic, "classification_accuracy", learn)
    evaluate(f"ckpt={folder}", "train_on_synthetic=true")
    record = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    assert record["generated"]["train_on_synthetic"] == 0.25 and record["control"]["train_on_synthetic"] == 0.75
    assert record["train_on_synthetic"] == {"num_samples": 600, "epochs": train_on_synthetic.EPOCHS}
    assert record["control"].keys() >= {"conditional_accuracy"} <= record["generated"].keys()
    ((images, labels, *real),) = learned
    assert images.dtype == torch.uint8 and torch.equal(labels, torch.arange(600) % 10)
    assert [len(part) for part in real] == [512, 512, 640, 640]
    said = capsys.readouterr().out
    assert "train_on_synthetic: accuracy on the test split after 4 epochs" in said and "conditional_accuracy" in said


def test_the_judge_and_the_folder_of_the_runs_data_can_be_named(evaluate, run, idx_data, tmp_path):
    (root,) = (override.partition("=")[2] for override in idx_data if override.startswith("data.root="))
    (tmp_path / "moved").symlink_to(root)
    evaluate(f"ckpt={run}", "data.name=fashion_mnist", f"data.root={tmp_path}/moved", f"out={tmp_path}/out")
    generated = json.loads((tmp_path / "out" / "evaluation.json").read_text())["generated"]
    assert generated["judge"] == "fashion_mnist"
    assert generated["reference"] == "fashion_mnist, training split, 512 images"
    with pytest.raises(Exception, match=r"No judge for 'unheard_of'"):
        evaluate(f"ckpt={run}", "data.name=unheard_of")
