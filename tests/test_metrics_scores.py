"""All scores together, on a toy data set with a judge of its own."""

import hashlib
import json
import logging
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from gan_lightning.images import normalize
from gan_lightning.metrics import scores as scores_module
from gan_lightning.metrics.better import METRICS, summary
from gan_lightning.metrics.classifier import train_classifier
from gan_lightning.metrics.inception import Inception
from gan_lightning.metrics.judge import Judge, extract, save_judge
from gan_lightning.metrics.scores import Reference, load_reference, score
from gan_lightning.metrics.train_on_synthetic import classification_accuracy


def toy(num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Four classes of 12x12 images: a soft blob in one quarter, of its own place, size and brightness."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (num,), generator=draw)
    x, y, size, light = torch.rand(4, num, 1, 1, generator=draw) * torch.tensor([3.0, 3, 1, 100]).view(
        4, 1, 1, 1
    ) + torch.tensor([1.5, 1.5, 1, 150]).view(4, 1, 1, 1)
    x, y = x + 5 * (labels % 2).view(-1, 1, 1), y + 5 * (labels // 2).view(-1, 1, 1)
    rows, columns = torch.arange(12.0).view(1, 12, 1), torch.arange(12.0).view(1, 1, 12)
    images = light * torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * size**2))
    images += 4 * torch.randn(images.shape, generator=draw).abs()
    return images.clamp(0, 255).to(torch.uint8).unsqueeze(1), labels


TRAINING, HELD_OUT, NEW = toy(3000, 0), toy(1000, 1), toy(1000, 2)


@pytest.fixture(scope="module")
def judge(tmp_path_factory) -> Judge:
    judge = train_classifier(*TRAINING, *HELD_OUT, name="toy", epochs=2, width=16)
    save_judge(judge, tmp_path_factory.mktemp("judge") / "toy.safetensors")
    return judge


@pytest.fixture(scope="module")
def reference(judge) -> Reference:
    return load_reference("toy", TRAINING[0], HELD_OUT[0], judge, cache=None)


def noisy(images: Tensor, level: float, seed: int = 0) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + level * noise).clamp(0, 255).to(torch.uint8)


def test_new_real_images_score_as_the_control_does(reference):
    found, control = score(NEW[0], reference).values, reference.control(1000).values
    assert found.keys() == control.keys()
    assert found["fid"] < 2 * control["fid"] + 0.05
    assert abs(found["kid"]) < 5 * max(found["kid_stderr"], control["kid_stderr"])
    for name in (
        "precision",
        "recall",
        "density",
        "coverage",
        "inception_score",
        "sure_share",
        "class_excess",
        "variety",
        "nearest_ratio",
    ):
        assert found[name] == pytest.approx(control[name], rel=0.1)
    assert found["class_kl"] < 0.01 and found["classes_missing"] == 0
    assert found["memorised"] < 0.03
    assert control["variety"] == pytest.approx(1, abs=0.1) and 1 <= control["class_excess"] < 1.2


def test_every_result_says_what_it_means(reference, judge):
    about = score(NEW[0], reference).about
    assert about == {
        "samples": "generated",
        "num_samples": 1000,
        "reference": "toy, training split, 3,000 images",
        "judge": "toy",
        "judge_sha256": judge.sha256,
        "judge_accuracy": judge.test_accuracy,
    }
    assert reference.control(500).about == {**about, "samples": "test split", "num_samples": 500}
    written = json.loads(json.dumps(score(NEW[0], reference).to_dict()))
    assert written["fid"] == score(NEW[0], reference).values["fid"] and sum(written["class_counts"]) == 1000


def test_control_scores_held_out_images_as_if_generated(reference):
    control, scored = reference.control(1000).values, score(HELD_OUT[0], reference).values
    # Another order of the same samples: only KID's subsets depend on it.
    assert {k: v for k, v in control.items() if "kid" not in k} == pytest.approx(
        {k: v for k, v in scored.items() if "kid" not in k}, rel=1e-4
    )
    assert control["memorised"] == pytest.approx(0.01)
    assert reference.control(5000).about["num_samples"] == 1000  # all there are


def test_noise_worsens_fid_kid_and_precision(reference):
    rows = [score(noisy(NEW[0], level), reference).values for level in (0, 20, 40, 80)]
    for name in ("fid", "kid"):
        values = [row[name] for row in rows]
        assert all(less < more for less, more in pairwise(values)), (name, values)
        assert values[-1] > 10 * abs(values[0])
    precision = [row["precision"] for row in rows]
    assert all(more > less for more, less in pairwise(precision)) and precision[-1] < 0.5 * precision[0], precision


def test_dropped_classes_lower_recall_and_coverage(reference):
    images, labels = toy(3000, 5)
    rows = [score(images[labels < classes][:600], reference).values for classes in (4, 3, 2, 1)]
    for name in ("recall", "coverage"):
        values = [row[name] for row in rows]
        assert all(more > less for more, less in pairwise(values)) and values[-1] < 0.5 * values[0], (name, values)
    assert all(less < more for less, more in pairwise(row["kid"] for row in rows))
    assert [row["classes_missing"] for row in rows] == [0, 1, 2, 3]
    assert rows[-1]["class_kl"] == pytest.approx(math.log(4), rel=0.05)


def test_one_class_constant_and_copying_generators_are_each_caught(reference):
    control = reference.control(1000).values
    images, labels = toy(5000, 6)
    one_class = score(images[labels == 2][:1000], reference).values
    constant = score(images[:1].expand(1000, -1, -1, -1), reference).values
    copying = score(TRAINING[0][:1000], reference).values

    assert one_class["class_kl"] > 1.3 and one_class["inception_score"] < 1.1
    assert one_class["class_excess"] > 3 and one_class["variety"] < 0.9 * control["variety"]
    assert one_class["precision"] > 0.9 * control["precision"]  # nothing wrong with quality
    assert one_class["memorised"] < 0.05  # nor does it copy
    assert one_class["kid"] > 100 * max(control["kid_stderr"], abs(control["kid"]))
    assert one_class["fid"] > 20 * control["fid"]

    assert constant["coverage"] < 0.05 and constant["recall"] < 0.01
    assert constant["kid"] > 100 * max(control["kid_stderr"], abs(control["kid"]))
    assert constant["fid"] > 20 * control["fid"] and constant["variety"] == 0

    assert copying["memorised"] == 1 and copying["nearest_ratio"] < 0.01
    assert copying["fid"] < 2 * control["fid"] + 0.05  # no other score sees it


def test_memorised_rises_as_training_images_are_mixed_in(reference):
    found = []
    for copies in (0, 100, 500):
        images = NEW[0].clone()
        images[:copies] = TRAINING[0][:copies]
        found.append(score(images, reference))
    shares = [scores.values["memorised"] for scores in found]
    assert shares == [pytest.approx(share, abs=0.02) for share in (0.01, 0.11, 0.505)]
    assert torch.equal(found[-1].nearness.image[:500], torch.arange(500))  # for the figure


def test_float_images_score_as_their_pixels(reference):
    assert score(normalize(NEW[0]), reference).values == score(NEW[0], reference).values


def test_a_run_in_bfloat16_changes_nothing(reference):
    expected = score(NEW[0], reference).values
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert score(NEW[0], reference).values == expected
    finally:
        torch.set_float32_matmul_precision("highest")


def test_scoring_leaves_the_global_generator_alone(judge):
    before = torch.get_rng_state()
    score(NEW[0], load_reference("toy", TRAINING[0], HELD_OUT[0], judge, cache=None))
    assert torch.equal(before, torch.get_rng_state())


def test_samples_that_are_not_finite_or_too_few_are_refused(reference):
    images = normalize(NEW[0])
    images[3, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite"):
        score(images, reference)
    with pytest.raises(ValueError, match=r"63 samples are too few .* give at least 64"):
        score(NEW[0][:63], reference)
    assert score(NEW[0][:64], reference).about["num_samples"] == 64


def test_more_samples_than_the_control_can_have_are_warned_of(reference, caplog):
    reference.check(1000)
    assert not caplog.records
    reference.check(1001, "metrics.num_samples=1001")
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.message == (
        "metrics.num_samples=1001: the control is scored on the 1000 images that the test split of toy has; "
        "FID, precision, recall and coverage depend on how many there are"
    )


def test_the_same_numbers_twice_and_in_another_process(judge, tmp_path):
    save_judge(judge, tmp_path / "toy.safetensors")
    torch.save([TRAINING[0], HELD_OUT[0], NEW[0]], tmp_path / "images.pt")
    first = score(NEW[0], load_reference("toy", TRAINING[0], HELD_OUT[0], judge, tmp_path)).values
    again = score(NEW[0], load_reference("toy", TRAINING[0], HELD_OUT[0], judge, None)).values
    assert first == again
    code = f"""
import json, sys, torch
from pathlib import Path
from gan_lightning.metrics.judge import load_judge
from gan_lightning.metrics.scores import load_reference, score
torch.set_num_threads({torch.get_num_threads()})
folder = Path(sys.argv[1])
training, held_out, new = torch.load(folder / "images.pt")
judge = load_judge("toy", folder)
references = [load_reference("toy", training, held_out, judge, cache) for cache in (folder, None)]
print(json.dumps([score(new, reference).values for reference in references]))
"""
    root = Path(scores_module.__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(answer.stdout) == [first, first]


# --- the cache ---


@pytest.fixture
def count(monkeypatch) -> list[int]:
    """One entry for each time that a reference is computed."""
    calls: list[int] = []
    compute = scores_module.compute
    monkeypatch.setattr(scores_module, "compute", lambda *args: (calls.append(1), compute(*args))[1])
    return calls


def load(judge: Judge, cache: Path, training: Tensor = TRAINING[0]) -> dict[str, float]:
    return load_reference("toy", training, HELD_OUT[0], judge, cache).control(500).values


def test_a_reference_is_computed_once_for_each_data_set_and_judge(judge, tmp_path, count, monkeypatch):
    first = load(judge, tmp_path)
    assert load(judge, tmp_path) == first and len(count) == 1
    load(judge, tmp_path, training=TRAINING[0].flip(0))
    assert len(count) == 2
    monkeypatch.setattr(judge, "sha256", "of other weights")
    load(judge, tmp_path)
    assert len(count) == 3
    monkeypatch.setattr(scores_module, "FORMAT", scores_module.FORMAT + 1)
    load(judge, tmp_path)
    assert len(count) == 4
    assert len(list(tmp_path.iterdir())) == 4  # and nothing half-written


@pytest.mark.parametrize("name", ["x" * 300, "圖" * 85, "🎉" * 80, "a/b", "it's [1], {ü}=#\\"], ids=range(5))
def test_a_reference_of_any_name_is_cached(judge, tmp_path, count, name):
    for _ in range(2):
        assert load_reference(name, NEW[0], HELD_OUT[0], judge, tmp_path).name == name
    assert len(count) == 1


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:1000] + b"?" + b[1001:], lambda b: b"", bytes.swapcase]
)
def test_a_damaged_cache_is_computed_again(judge, tmp_path, count, damage):
    first = load(judge, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert load(judge, tmp_path) == first and len(count) == 2
    assert load(judge, tmp_path) == first and len(count) == 2


def test_a_cache_that_cannot_be_written_is_done_without(judge, tmp_path, count, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.INFO):
        first = load(judge, tmp_path / "file")  # a file where the folder should be; root may write anywhere
    assert "reference not cached" in caplog.text
    assert load(judge, tmp_path / "file") == first and len(count) == 2


def test_a_write_that_fails_leaves_nothing_behind(judge, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    load(judge, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- options ---


def test_a_classifier_learns_from_good_samples_and_not_from_wrong_labels():
    good = classification_accuracy(normalize(NEW[0]), NEW[1], *TRAINING, *HELD_OUT)
    shuffled = NEW[1][torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    bad = classification_accuracy(NEW[0], shuffled, *TRAINING, *HELD_OUT)
    assert good.generated > 0.95 and bad.generated < 0.6
    assert good.control == bad.control == pytest.approx(good.generated, abs=0.05)


def test_the_control_of_a_classifier_learns_from_as_many_real_images(monkeypatch):
    trained = []

    def train(images, labels, *_, **__):
        trained.append((images, labels))
        return SimpleNamespace(test_accuracy=len(trained) / 10)

    monkeypatch.setattr("gan_lightning.metrics.train_on_synthetic.train_classifier", train)
    found = classification_accuracy(*NEW, *TRAINING, *HELD_OUT)
    assert (found.generated, found.control) == (0.1, 0.2)
    assert torch.equal(trained[0][0], NEW[0]) and trained[1][0].shape == NEW[0].shape
    place = {image.numpy().tobytes(): label for image, label in zip(*TRAINING, strict=True)}
    assert all(place[image.numpy().tobytes()] == label for image, label in zip(*trained[1], strict=True))


def test_inception_says_what_is_missing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
        with pytest.raises(ValueError, match=r"pip install 'gan-lightning\[inception\]'"):
            Inception(tmp_path / "weights.pth")
    pytest.importorskip("torch_fidelity")
    with pytest.raises(ValueError, match=r"weights are missing; put https://.* at .*weights\.pth"):
        Inception(tmp_path / "weights.pth", fetch=False)

    def no_network(url, timeout):
        raise OSError("no route")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(ValueError, match=r"cannot be fetched \(no route\); put https://"):
        Inception(tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_bytes(b"not these")
    with pytest.raises(ValueError, match=r"weights\.pth is damaged"):
        Inception(tmp_path / "weights.pth")


def test_inceptions_weights_are_fetched_whole_and_once(tmp_path, monkeypatch):
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.save({"weight": torch.ones(3_000_000)}, tmp_path / "published.pth")  # several blocks of a download
    content = (tmp_path / "published.pth").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(inception, "URL_INCEPTION_V3", (tmp_path / "published.pth").as_uri())
    monkeypatch.setattr(inception, "FeatureExtractorInceptionV3", lambda *_, **__: torch.nn.Identity())
    monkeypatch.setattr("gan_lightning.metrics.inception.HASH_PREFIX", sha256[:8])
    weights = tmp_path / "new" / "weights.pth"
    assert Inception(weights).sha256 == sha256
    assert weights.read_bytes() == content and [path.name for path in weights.parent.iterdir()] == ["weights.pth"]
    (tmp_path / "published.pth").unlink()
    assert Inception(weights).sha256 == sha256  # from the disk


def test_inception_extracts_features_of_grey_images(tmp_path, monkeypatch):
    """The real network with random weights: 2048 features, 1008 logits."""
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with monkeypatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        weights = inception.FeatureExtractorInceptionV3("inception", ["2048"]).state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    monkeypatch.setattr("gan_lightning.metrics.inception.HASH_PREFIX", "")
    extractor = Inception(tmp_path / "weights.pth")
    features, logits = extract(extractor, NEW[0][:2])
    assert features.shape == (2, 2048) and logits.shape == (2, 1008)
    assert not extractor.classifies_data and len(extractor.sha256) == 64


def test_the_table_knows_every_score(reference):
    stacks = {"modes", "modes_kl", "modes_kl_data"}
    assert score(NEW[0], reference, NEW[1]).values.keys() == METRICS.keys() - stacks


def test_the_line_shows_scores_beside_those_of_real_images():
    values = {"density": 1.0, "fid": 6.85, "modes": 998.0, "modes_kl": 0.1}
    control = {"density": 1.0, "fid": 0.08, "modes": 1000.0, "modes_kl": 0.0236}
    assert summary(values, control) == "fid 6.850 (real 0.080), modes 998 (real 1000), modes_kl 0.1000 (real 0.0236)"
