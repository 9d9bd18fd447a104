"""Inception score and class histogram, which read the judge's logits only; variety, which reads pixels only."""

import math

import numpy as np
import pytest
import torch

from gan_lightning.metrics.class_histogram import class_histogram
from gan_lightning.metrics.inception_score import inception_score
from gan_lightning.metrics.variety import spread


def logits(num_samples: int = 600, num_classes: int = 10, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(num_samples, num_classes, generator=torch.Generator().manual_seed(seed))


def one_hot(classes: torch.Tensor, num_classes: int = 10, sure: float = 200.0) -> torch.Tensor:
    return sure * torch.nn.functional.one_hot(classes, num_classes).float()


def test_inception_score_agrees_with_its_definition():
    x = logits().double().numpy()
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    expected = np.exp(np.mean([np.sum(row * np.log(row / p.mean(0))) for row in p]))
    assert inception_score(logits()) == pytest.approx(expected, rel=1e-10)


def test_inception_score_agrees_with_torch_fidelity():
    metric_isc = pytest.importorskip("torch_fidelity.metric_isc")
    theirs = metric_isc.isc_features_to_metric(logits(), splits=1, shuffle=False)["inception_score_mean"]
    assert inception_score(logits()) == pytest.approx(theirs, rel=1e-6)


def test_inception_score_spans_one_to_the_number_of_classes():
    assert inception_score(one_hot(torch.arange(1000) % 10)) == pytest.approx(10, rel=1e-9)
    assert inception_score(one_hot(torch.zeros(1000, dtype=torch.int64))) == pytest.approx(1, rel=1e-9)
    assert inception_score(torch.zeros(1000, 10)) == pytest.approx(1, rel=1e-9)
    assert math.isfinite(inception_score(one_hot(torch.arange(1000) % 3, sure=1e6)))


def test_class_kl_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    data = torch.randint(500, 1500, (10,), generator=torch.Generator().manual_seed(1))
    counts = logits().argmax(dim=1).bincount(minlength=10)
    histogram = class_histogram(logits(), data)
    assert histogram.kl == pytest.approx(stats.entropy(counts.numpy(), data.numpy()), rel=1e-10)
    assert histogram.counts == counts.tolist()


def test_one_class_of_ten_is_caught():
    histogram = class_histogram(one_hot(torch.full((500,), 3)), torch.full((10,), 6000))
    assert histogram.kl == pytest.approx(math.log(10))
    assert histogram.missing == 9
    assert histogram.counts[3] == 500


def test_classes_as_in_the_data_have_no_divergence():
    histogram = class_histogram(one_hot(torch.arange(1000) % 10), torch.full((10,), 6000))
    assert (histogram.kl, histogram.missing, histogram.sure_share) == (pytest.approx(0, abs=1e-12), 0, 1.0)


def test_sure_share_counts_probabilities_from_nine_tenths_up():
    sure, unsure = math.log(0.91 / 0.09), math.log(0.89 / 0.11)
    histogram = class_histogram(
        torch.tensor([[sure, 0.0], [0.0, unsure], [0.0, 0.0], [0.0, sure]]), torch.tensor([1, 1])
    )
    assert histogram.sure_share == 0.5


def test_excess_is_that_of_the_most_over_represented_class():
    def excess(counts: list[int], data_counts: list[int]) -> float:
        classes = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        return class_histogram(one_hot(classes, len(counts)), torch.tensor(data_counts)).excess

    assert excess([10, 20, 30], [100, 200, 300]) == pytest.approx(1)
    assert excess([0, 5, 15], [1, 1, 2]) == pytest.approx(1.5)
    assert excess([0, 5, 15], [1, 3, 0]) == pytest.approx(1 / 3)  # one that the data lack does not count


def test_spread_of_images_is_their_distance_from_the_mean():
    images = torch.tensor([0, 255]).view(2, 1, 1, 1).expand(2, 1, 3, 3).to(torch.uint8)
    assert spread(images) == pytest.approx(2**0.5)  # -1 and 1: variance 2, of n - 1
    assert spread(images[:1].expand(5, -1, -1, -1)) == 0
