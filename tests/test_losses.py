import math

import pytest
import torch
from torch.testing import assert_close

from gan_lightning.losses import Minimax, NonSaturating

LOSSES = [NonSaturating, Minimax]

# sigmoid of these logits: 3/4, 1/2 for real images; 1/4, 2/3 for generated ones.
REAL_LOGITS = torch.tensor([math.log(3), 0.0], dtype=torch.float64)
FAKE_LOGITS = torch.tensor([-math.log(3), math.log(2)], dtype=torch.float64)

BY_HAND = {
    "discriminator": -(math.log(3 / 4) + math.log(1 / 2)) / 2 - (math.log(3 / 4) + math.log(1 / 3)) / 2,
    NonSaturating: -(math.log(1 / 4) + math.log(2 / 3)) / 2,  # -E[log D(G(z))]
    Minimax: (math.log(3 / 4) + math.log(1 / 3)) / 2,  # E[log(1 - D(G(z)))]
}


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("loss", LOSSES)
def test_discriminator_loss_equals_the_value_worked_by_hand(loss):
    assert_close(loss().discriminator(REAL_LOGITS, FAKE_LOGITS), scalar(BY_HAND["discriminator"]))


@pytest.mark.parametrize("loss", LOSSES)
def test_generator_loss_equals_the_value_worked_by_hand(loss):
    assert_close(loss().generator(None, FAKE_LOGITS), scalar(BY_HAND[loss]))


@pytest.mark.parametrize("loss", LOSSES)
def test_discriminator_scale_multiplies_the_discriminators_loss_alone(loss):
    scaled = loss(discriminator_scale=0.5)
    assert_close(scaled.discriminator(REAL_LOGITS, FAKE_LOGITS), scalar(0.5 * BY_HAND["discriminator"]))
    assert_close(scaled.generator(None, FAKE_LOGITS), scalar(BY_HAND[loss]))


@pytest.mark.parametrize("loss", LOSSES)
def test_undecided_discriminator_pays_log_four(loss):
    """Goodfellow et al. 2014, theorem 1: the value -log 4 of the game where D(x) = D(G(z)) = 1/2."""
    assert_close(loss().discriminator(torch.zeros(3), torch.zeros(3)), torch.tensor(math.log(4)))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("logit", [-1e4, 1e4])
def test_extreme_logits_give_finite_losses_and_gradients(loss, logit):
    real_logits, fake_logits = torch.tensor([logit], requires_grad=True), torch.tensor([logit], requires_grad=True)
    d_loss, g_loss = loss().discriminator(real_logits, fake_logits), loss().generator(None, fake_logits)
    gradients = torch.autograd.grad(d_loss, [real_logits, fake_logits]) + torch.autograd.grad(g_loss, fake_logits)
    assert all(value.isfinite().all() for value in (d_loss, g_loss, *gradients))
    assert d_loss == 1e4  # one half of it is wrong with certainty, and pays for that in full


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_equal_finite_differences(loss):
    real_logits, fake_logits = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    real_logits.requires_grad_()
    fake_logits.requires_grad_()
    assert torch.autograd.gradcheck(loss(0.5).discriminator, (real_logits, fake_logits))
    assert torch.autograd.gradcheck(lambda logits: loss().generator(None, logits), fake_logits)


@pytest.mark.parametrize("loss", LOSSES)
def test_descent_moves_logits_to_where_each_player_wants_them(loss):
    real_logits, fake_logits = REAL_LOGITS.clone().requires_grad_(), FAKE_LOGITS.clone().requires_grad_()
    loss().discriminator(real_logits, fake_logits).backward()
    assert (real_logits.grad < 0).all() and (fake_logits.grad > 0).all()
    fake_logits.grad = None
    loss().generator(None, fake_logits).backward()
    assert (fake_logits.grad < 0).all()


def test_minimax_gradient_vanishes_where_the_non_saturating_one_does_not():
    rejected = torch.tensor([-20.0], requires_grad=True)
    (vanished,) = torch.autograd.grad(Minimax().generator(None, rejected), rejected)
    (kept,) = torch.autograd.grad(NonSaturating().generator(None, rejected), rejected)
    assert abs(vanished) < 1e-8
    assert_close(kept, torch.tensor([-1.0]))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_scale_that_is_not_positive_is_refused_by_its_key(loss, scale):
    with pytest.raises(ValueError, match=f"loss.discriminator_scale={scale}"):
        loss(discriminator_scale=scale)
