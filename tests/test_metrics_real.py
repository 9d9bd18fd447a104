"""The shipped judges on the real data sets, where those are on this machine. Fetches nothing."""

import resource
import sys
import time
from itertools import pairwise

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from gan_lightning.images import normalize
from gan_lightning.metrics.judge import load_judge
from gan_lightning.metrics.judge_training import accuracy
from gan_lightning.metrics.scores import Reference, load_reference, score
from gan_lightning.paths import conf_dir

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["mnist", "fashion_mnist"])
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def data(name) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, test images and labels."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        module = instantiate(compose("train", [f"data={name}"]).data)
    try:
        return module.images("train"), module.labels("train"), module.images("test"), module.labels("test")
    except (ValueError, OSError) as error:
        pytest.skip(f"{name} is not on this machine: {error}")


@pytest.fixture(scope="module")
def reference(name, data, tmp_path_factory) -> Reference:
    return load_reference(name, data[0], data[2], load_judge(name), tmp_path_factory.mktemp("references"))


def test_judges_are_as_accurate_as_they_say(name, data):
    judge = load_judge(name)
    assert accuracy(judge, data[2], data[3]) == pytest.approx(judge.test_accuracy, abs=2e-4)


def test_control_is_near_its_floor(reference):
    control = reference.control(10_000).values
    print(reference.name, control)
    assert control["fid"] < 1 and abs(control["kid"]) < 0.05
    assert min(control["precision"], control["recall"], control["coverage"]) > 0.6
    assert control["class_kl"] < 0.01 and control["classes_missing"] == 0
    assert control["memorised"] == pytest.approx(0.01, abs=1e-3) and control["nearest_ratio"] == 1


def test_noise_worsens_fid_kid_and_precision(reference, data):
    images = data[2][:2000].float()
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    rows = [score(normalize((images + level * noise).clamp(0, 255)), reference).values for level in (0, 20, 60)]
    for key in ("fid", "kid"):
        values = [row[key] for row in rows]
        assert all(less < more for less, more in pairwise(values)) and values[-1] > 10 * abs(values[0]), (key, values)
    precision = [row["precision"] for row in rows]
    assert all(more > less for more, less in pairwise(precision)) and precision[-1] < 0.5 * precision[0], precision


def test_dropped_classes_lower_recall_and_coverage(reference, data):
    rows = [score(data[2][data[3] < classes][:1000], reference).values for classes in (10, 5, 1)]
    for key in ("recall", "coverage"):
        values = [row[key] for row in rows]
        assert all(more > less for more, less in pairwise(values)) and values[-1] < 0.5 * values[0], (key, values)
    assert all(less < more for less, more in pairwise(row["kid"] for row in rows))
    assert rows[-1]["class_kl"] > 2 and rows[-1]["classes_missing"] >= 5


def test_memorised_rises_with_copies_and_not_with_one_class_or_blank_images(reference, data):
    images, labels = data[2][:2000].clone(), data[3]
    images[:500] = data[0][:500]
    assert score(images, reference).values["memorised"] == pytest.approx(0.2575, abs=0.01)
    # Digits 1 are dense: of MNIST's, 9 % are nearer to a training image than 99 % of all test images.
    assert score(data[2][labels == 1], reference).values["memorised"] < 0.04
    assert score(torch.zeros(600, *images.shape[1:], dtype=torch.uint8), reference).values["memorised"] == 0


def test_ten_thousand_samples_take_two_cores_at_most_twenty_seconds_and_two_gigabytes(reference, data):
    start = time.process_time()
    score(data[2], reference)
    assert time.process_time() - start < 2 * 20
    if sys.platform == "linux":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 2e9
