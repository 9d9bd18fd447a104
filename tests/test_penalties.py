import pytest
import torch
from torch import nn
from torch.testing import assert_close

from gan_lightning.penalties import R1


class Linear(nn.Module):
    """D(x) = w . x, whose gradient is w everywhere."""

    def __init__(self, channels, scale=1.0):
        super().__init__()
        weight = torch.randn(channels, 4, 4, generator=torch.Generator().manual_seed(channels))
        self.weight = nn.Parameter(scale * weight)

    def forward(self, images, labels=None):
        return (images * self.weight).sum(dim=(1, 2, 3))


class Squared(Linear):
    """D(x) = (w . x)^2 / 2, whose gradient at x is (w . x) w."""

    def forward(self, images, labels=None):
        return super().forward(images).square() / 2


def images(channels, seed=0, batch=5):
    return torch.rand(batch, channels, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("channels", [1, 3])
def test_r1_of_a_linear_discriminator_is_half_its_squared_length(channels):
    critic = Linear(channels)
    penalty = R1(weight=10.0)(critic, images(channels), images(channels, seed=1), None)
    assert_close(penalty, 10.0 / 2 * critic.weight.square().sum())


@pytest.mark.parametrize("channels", [1, 3])
def test_r1_takes_the_mean_over_the_real_images_alone(channels):
    critic, real = Squared(channels), images(channels)
    by_hand = ((real * critic.weight).sum(dim=(1, 2, 3)).square() * critic.weight.square().sum()).mean()
    for seed in (1, 2):  # the generated images make no difference
        assert_close(R1(weight=0.3)(critic, real, images(channels, seed), None), 0.15 * by_hand)


@pytest.mark.parametrize("channels", [1, 3])
def test_r1_teaches_the_discriminator_to_be_flat(channels):
    critic = Linear(channels)
    R1(weight=2.0)(critic, images(channels), images(channels, seed=1), None).backward()
    assert_close(critic.weight.grad, 2 * critic.weight.detach())  # of weight / 2 * |w|^2


def test_r1_gradient_equals_finite_differences():
    critic, real = Squared(1).double(), images(1).double()

    def penalty(weight):
        return R1(weight=0.3)(lambda x, _: (x * weight).sum(dim=(1, 2, 3)).square() / 2, real, real, None)

    assert torch.autograd.gradcheck(penalty, critic.weight)


def test_r1_of_a_flat_discriminator_is_zero_with_finite_gradients():
    critic = Linear(1, scale=0.0)
    penalty = R1(weight=1.0)(critic, images(1), images(1), None)
    penalty.backward()
    assert penalty == 0
    assert_close(critic.weight.grad, torch.zeros_like(critic.weight))


def test_r1_is_computed_in_float32_under_bf16_autocast():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False), nn.Flatten(0))
    dtypes = []
    critic[1].register_forward_hook(lambda layer, inputs, output: dtypes.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        critic(images(1))  # autocast keeps the weights it has cast
        penalty = R1(weight=0.3)(lambda x, _: critic(x), images(1), images(1), None)
    assert dtypes == [torch.bfloat16, torch.float32]
    assert penalty.dtype == torch.float32
    assert_close(penalty, 0.15 * critic[1].weight.square().sum(), rtol=1e-6, atol=0.0)


def test_r1_leaves_the_images_as_they_are():
    real = images(1)
    before = real.clone()
    R1(weight=1.0)(Squared(1), real, images(1), None)
    assert not real.requires_grad and real.grad is None
    assert torch.equal(real, before)


def test_r1_hands_labels_to_the_discriminator():
    seen = []

    def critic(x, labels):
        seen.append(labels)
        return x.sum(dim=(1, 2, 3))

    labels = torch.arange(5)
    R1(weight=1.0)(critic, images(1), images(1), labels)
    assert seen == [labels]


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_weight_that_is_not_positive_is_refused_by_its_key(weight):
    with pytest.raises(ValueError, match=f"penalty.weight={weight}.*penalty=none"):
        R1(weight=weight)
