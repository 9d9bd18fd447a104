import time

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback
from torch import nn
from torch.testing import assert_close

from gan_lightning.ema import EMA
from gan_lightning.train import build_gan, build_trainer


class Point(nn.Module):
    """One weight and one buffer, set by hand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.register_buffer("statistic", torch.zeros(1, dtype=torch.float64))


@pytest.fixture
def point():
    return Point()


def walk(ema, point, weights, batch_size):
    """Set the weight to each of `weights` in turn, as training would, and update the average."""
    ema.follow(point)
    for k, weight in enumerate(weights, start=1):
        with torch.no_grad():
            point.weight.fill_(weight)
            point.statistic.fill_(-weight)
        ema.update(point, ema.weight(batch_size, images_seen=k * batch_size))
    return ema.generator


def test_average_equals_its_closed_form_over_many_updates(point):
    weights, batch_size = [3.0, 1.0, 4.0, 1.0, 5.0], 100
    # Half-life 400 images and warm-up 1: the half-life is 100, 200, 300, then 400 images.
    decays = [0.5 ** (100 / half_life) for half_life in (100, 200, 300, 400, 400)]
    average = walk(EMA(half_life_kimg=0.4, warmup=1.0), point, weights, batch_size)
    # sum over k of (1 - d_k) * d_{k+1} * ... * d_K * w_k; the start at 0 adds nothing
    shares = [(1 - d) * torch.tensor(decays[k + 1 :]).prod().item() for k, d in enumerate(decays)]
    expected = sum(share * weight for share, weight in zip(shares, weights, strict=True))
    assert_close(average.weight, torch.full((2,), expected, dtype=torch.float64), rtol=1e-6, atol=0.0)


def test_half_life_is_the_number_of_images_after_which_a_weight_counts_half(point):
    ema = EMA(half_life_kimg=0.001 * 64, warmup=1.0)  # 64 images
    ema.follow(point)
    with torch.no_grad():
        point.weight.fill_(1.0)
    for _ in range(4):  # 64 images in all
        ema.update(point, ema.weight(batch_size=16, images_seen=10**6))
    assert_close(ema.generator.weight, torch.full((2,), 0.5, dtype=torch.float64))


def test_warmup_bounds_the_half_life_by_a_share_of_the_images_seen(point):
    ema = EMA(half_life_kimg=10.0, warmup=0.05)
    ema.follow(point)
    with torch.no_grad():
        point.weight.fill_(1.0)
    ema.update(point, ema.weight(batch_size=128, images_seen=1280))  # half-life 64 images: two of them in this batch
    assert_close(ema.generator.weight, torch.full((2,), 0.75, dtype=torch.float64))


def test_buffers_are_copied_not_averaged(point):
    average = walk(EMA(half_life_kimg=10.0, warmup=1.0), point, [2.0, 6.0], batch_size=10)
    assert average.statistic == -6
    assert 0 < average.weight[0] < 6
    point.statistic.fill_(9.0)
    assert average.statistic == -6  # a copy, not the same tensor


def test_average_has_no_gradient_and_does_not_touch_the_generator(point):
    ema = EMA()
    average = walk(ema, point, [1.0], batch_size=10)
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert point.weight.requires_grad
    assert_close(point.weight.detach(), torch.ones(2, dtype=torch.float64))


def test_average_starts_at_the_generators_weights_in_memory_of_its_own(point):
    with torch.no_grad():
        point.weight.fill_(7.0)
    ema = EMA()
    ema.follow(point)
    with torch.no_grad():
        point.weight.fill_(0.0)
    assert_close(ema.generator.weight, torch.full((2,), 7.0, dtype=torch.float64))


def test_update_costs_less_than_three_hundredths_of_a_step(compose, tmp_path, monkeypatch):
    """The default MLP in batches of 128; the least of many, which no other process has disturbed."""
    steps, updates, update = [], [], EMA.update

    def timed(self, *args):
        begin = time.process_time()  # not that on the clock, which is of a busy machine
        update(self, *args)
        updates.append(time.process_time() - begin)

    class Watch(Callback):
        def on_train_batch_start(self, *_):
            self.begin = time.process_time()

        def on_train_batch_end(self, *_):
            steps.append(time.process_time() - self.begin)

    monkeypatch.setattr(EMA, "update", timed)
    config = compose("data.batch_size=128", "trainer.max_epochs=15", "logger=none")
    config.callbacks = {}
    trainer = build_trainer(config, Watch())
    trainer.fit(build_gan(config), instantiate(config.data))
    assert len(updates) == len(steps) == 60
    assert min(updates) < 0.03 * min(steps)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"half_life_kimg": 0.0}, "^half_life_kimg=0.0"),
        ({"half_life_kimg": -1.0}, "^half_life_kimg=-1.0"),
        ({"warmup": 0.0}, "^warmup=0.0"),
        ({"warmup": 1.5}, "^warmup=1.5"),
    ],
)
def test_value_out_of_range_is_refused_by_its_key(settings, message):
    with pytest.raises(ValueError, match=message):
        EMA(**settings)
