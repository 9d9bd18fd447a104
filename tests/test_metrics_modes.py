"""The mode counter of Stacked MNIST, by hand, and on samplers of which all is known."""

import math

import pytest
import torch

from gan_lightning.metrics.judge import Judge, StackedJudge, load_judge, load_stacked_judge
from gan_lightning.metrics.modes import independent, modes

EVEN = torch.ones(1000)
# Digits of MNIST's training split, from 0 to 9.
DIGITS = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]).double()
STACKS = (DIGITS[:, None, None] * DIGITS[:, None] * DIGITS).flatten()
NUM_SAMPLES = 26_000


def draw(weights, seed, num=NUM_SAMPLES):
    drawn = torch.multinomial(weights.float(), num, replacement=True, generator=torch.Generator().manual_seed(seed))
    return drawn.bincount(minlength=len(weights))


def test_divergences_are_those_worked_by_hand():
    found = modes(torch.tensor([6, 2, 0, 0]), torch.tensor([1, 3, 2, 2]))
    assert found.found == 2
    # q = (3/4, 1/4, 0, 0), u = 1/4, p = (1/8, 3/8, 1/4, 1/4), N = 8
    assert found.kl == pytest.approx(0.75 * math.log(3))
    assert found.kl_data == pytest.approx(0.75 * math.log(6) + 0.25 * math.log(2 / 3) - 1 / 16)


def test_one_mode_is_as_far_as_can_be_from_uniform():
    found = modes(torch.tensor([0, 50, 0, 0]), torch.ones(4))
    assert (found.found, found.kl, found.kl_data) == (1, pytest.approx(math.log(4)), pytest.approx(math.log(4)))


def test_perfect_sampler_scores_what_is_published():
    """Means over 40 draws: 0.0236 +- 0.0011 of MNIST's own frequencies, 0.0193 of equal ones; without bias 0."""
    for weights, expected in (STACKS, 0.0236), (EVEN, 0.0193):
        drawn = [modes(draw(weights, seed), weights) for seed in range(40)]
        assert all(one.found == 1000 for one in drawn)
        kl, kl_data = (torch.tensor([getattr(one, name) for one in drawn]) for name in ("kl", "kl_data"))
        assert kl.mean() == pytest.approx(expected, abs=4e-4) and 5e-4 < kl.std() < 14e-4
        assert abs(kl_data.mean()) < 5e-4 and 5e-4 < kl_data.std() < 12e-4


def test_a_tenth_of_the_modes_is_counted_and_far():
    weights = STACKS.clone()
    weights[100:] = 0
    found = modes(draw(weights, 0), STACKS)
    assert found.found == 100
    assert found.kl == pytest.approx(math.log(10), abs=0.01)
    share = STACKS[:100].sum() / STACKS.sum()
    assert found.kl_data == pytest.approx(-share.log().item(), abs=0.01)


def test_fewer_samples_than_modes_have_a_bias_that_is_told_apart():
    """Of 5,000 samples the published score is half made of it."""
    found = modes(draw(STACKS, 0, 5000), STACKS)
    assert found.found < 1000 and found.kl > 0.08 and abs(found.kl_data) < 0.02


# --- Frequencies of independent channels ---------------------------------------------------------------------


def test_product_of_the_channels_shares_is_the_datas():
    assert torch.allclose(independent(draw(STACKS, 0, 60_000), (10, 10, 10)) / 60_000, STACKS / STACKS.sum(), rtol=0.15)
    torch.testing.assert_close(independent(STACKS, (10, 10, 10)), STACKS)


def test_each_channel_has_shares_of_its_own():
    counts = torch.tensor([[6, 2], [0, 0]]).flatten()  # the first channel always 0, the second 0 in 3 of 4
    assert independent(counts, (2, 2)).tolist() == [6, 2, 0, 0]
    counts = torch.tensor([[3, 1], [1, 3]]).flatten()  # as likely as not, and never independent
    assert independent(counts, (2, 2)).tolist() == [2, 2, 2, 2]
    counts = torch.tensor([[4, 2, 2], [0, 0, 0]]).flatten()  # parts of two and of three classes
    assert independent(counts, (2, 3)).tolist() == [4, 2, 2, 0, 0, 0]


def test_counts_of_undivided_images_stay_as_they_are():
    counts = torch.tensor([3, 1, 4])
    assert independent(counts, (3,)) is counts


# --- The judge of stacks -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stacked():
    torch.manual_seed(0)
    single = Judge("toy", (1, 12, 12), num_classes=3, width=4).eval().requires_grad_(False)
    return single, StackedJudge(single, num_channels=2)


def test_features_are_those_of_the_channels_side_by_side(stacked):
    single, judge = stacked
    images = torch.rand(5, 2, 12, 12) * 2 - 1
    features, logits = judge(images)
    first, second = single(images[:, :1]), single(images[:, 1:])
    torch.testing.assert_close(features, torch.cat([first[0], second[0]], dim=1))
    expected = first[1].softmax(1).unsqueeze(2) * second[1].softmax(1).unsqueeze(1)  # (5, 3, 3)
    torch.testing.assert_close(logits.softmax(1), expected.flatten(1))
    torch.testing.assert_close(logits.argmax(1), 3 * first[1].argmax(1) + second[1].argmax(1))


def test_judge_of_stacked_mnist_is_mnists_and_says_its_accuracy():
    judge, single = load_stacked_judge("mnist", num_channels=3), load_judge("mnist")
    assert (judge.name, judge.sha256, judge.test_accuracy) == ("mnist, channel by channel", single.sha256, 0.9964)
    features, logits = judge(torch.rand(2, 3, 28, 28) * 2 - 1)
    assert features.shape == (2, 384) and logits.shape == (2, 1000)


def test_stacks_of_other_channels_are_refused_in_one_line(stacked):
    _, judge = stacked
    for shape in (3, 12, 12), (1, 12, 12), (2, 14, 14):
        with pytest.raises(ValueError, match=r"'toy, channel by channel' takes images of shape \(2, 12, 12\), got "):
            judge(torch.zeros(1, *shape))
    with pytest.raises(ValueError, match=r"takes images of shape \(3, 12, 12\); stacks .* a single channel"):
        StackedJudge(Judge("colour", (3, 12, 12), num_classes=3, width=4), num_channels=2)
