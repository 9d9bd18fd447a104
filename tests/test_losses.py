import math

import pytest
import torch
from torch.testing import assert_close

from gan_lightning.losses import Hinge, LeastSquares, Minimax, NonSaturating, Relativistic, Wasserstein

LOSSES = [NonSaturating, Minimax, LeastSquares, Hinge, Wasserstein, Relativistic]
WITH_PROBABILITIES = [NonSaturating, Minimax]

# sigmoid of these logits: 3/4, 1/2 for real images; 1/4, 2/3 for generated ones.
REAL_LOGITS = torch.tensor([math.log(3), 0.0], dtype=torch.float64)
FAKE_LOGITS = torch.tensor([-math.log(3), math.log(2)], dtype=torch.float64)
A, B = math.log(3), math.log(2)  # logits (A, 0) and (-A, B)

D_OF_PROBABILITIES = -(math.log(3 / 4) + math.log(1 / 2)) / 2 - (math.log(3 / 4) + math.log(1 / 3)) / 2
BY_HAND = {  # (L_D, L_G)
    NonSaturating: (D_OF_PROBABILITIES, -(math.log(1 / 4) + math.log(2 / 3)) / 2),
    Minimax: (D_OF_PROBABILITIES, (math.log(3 / 4) + math.log(1 / 3)) / 2),
    LeastSquares: (((A - 1) ** 2 + 1) / 4 + (A**2 + B**2) / 4, ((A + 1) ** 2 + (B - 1) ** 2) / 4),
    Hinge: ((0 + 1) / 2 + (0 + 1 + B) / 2, (A - B) / 2),  # A > 1: one real and one generated image cost nothing
    Wasserstein: ((-A + B) / 2 - A / 2, (A - B) / 2),
    # Differences of real and generated: 2 A and -B, so sigmoids 9/10 and 1/3.
    Relativistic: (-(math.log(9 / 10) + math.log(1 / 3)) / 2, -(math.log(1 / 10) + math.log(2 / 3)) / 2),
}


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


def seen_by_generator(loss, real_logits):
    return real_logits if loss.needs_real_logits else None


@pytest.mark.parametrize("loss", LOSSES)
def test_discriminator_loss_equals_the_value_worked_by_hand(loss):
    assert_close(loss().discriminator(REAL_LOGITS, FAKE_LOGITS), scalar(BY_HAND[loss][0]))


@pytest.mark.parametrize("loss", LOSSES)
def test_generator_loss_equals_the_value_worked_by_hand(loss):
    assert_close(loss().generator(seen_by_generator(loss, REAL_LOGITS), FAKE_LOGITS), scalar(BY_HAND[loss][1]))


@pytest.mark.parametrize("loss", WITH_PROBABILITIES)
def test_discriminator_scale_multiplies_the_discriminators_loss_alone(loss):
    scaled = loss(discriminator_scale=0.5)
    assert_close(scaled.discriminator(REAL_LOGITS, FAKE_LOGITS), scalar(0.5 * BY_HAND[loss][0]))
    assert_close(scaled.generator(None, FAKE_LOGITS), scalar(BY_HAND[loss][1]))


@pytest.mark.parametrize("loss", WITH_PROBABILITIES)
def test_label_smoothing_lowers_the_target_of_real_images_alone(loss):
    smoothed = loss(label_smoothing=0.1)
    real = -0.9 * (math.log(3 / 4) + math.log(1 / 2)) / 2 - 0.1 * (math.log(1 / 4) + math.log(1 / 2)) / 2
    fake = -(math.log(3 / 4) + math.log(1 / 3)) / 2
    assert_close(smoothed.discriminator(REAL_LOGITS, FAKE_LOGITS), scalar(real + fake))
    assert_close(smoothed.generator(None, FAKE_LOGITS), scalar(BY_HAND[loss][1]))
    at_target = torch.tensor([math.log(9)], requires_grad=True)  # D(x) = 0.9
    smoothed.discriminator(at_target, torch.zeros(1)).backward()
    assert_close(at_target.grad, torch.zeros(1), rtol=0, atol=1e-7)


@pytest.mark.parametrize("loss", WITH_PROBABILITIES)
def test_undecided_discriminator_pays_log_four(loss):
    """Goodfellow et al. 2014, theorem 1: the value -log 4 of the game where D(x) = D(G(z)) = 1/2."""
    assert_close(loss().discriminator(torch.zeros(3), torch.zeros(3)), torch.tensor(math.log(4)))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("real", [-1e4, 1e4])
@pytest.mark.parametrize("fake", [-1e4, 1e4])
def test_extreme_logits_give_finite_losses_and_gradients(loss, real, fake):
    real_logits, fake_logits = torch.tensor([real], requires_grad=True), torch.tensor([fake], requires_grad=True)
    d_loss = loss().discriminator(real_logits, fake_logits)
    g_loss = loss().generator(seen_by_generator(loss, real_logits), fake_logits)
    gradients = torch.autograd.grad(d_loss, [real_logits, fake_logits]) + torch.autograd.grad(g_loss, fake_logits)
    assert all(value.isfinite().all() for value in (d_loss, g_loss, *gradients))
    if loss in WITH_PROBABILITIES:  # what is wrong with certainty is paid for in full
        assert d_loss == 1e4 * ((real < 0) + (fake > 0))


@pytest.mark.parametrize("loss", [*LOSSES, lambda: NonSaturating(0.5, label_smoothing=0.2)])
def test_gradients_equal_finite_differences(loss):
    real_logits, fake_logits = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    real_logits.requires_grad_()
    fake_logits.requires_grad_()
    assert torch.autograd.gradcheck(loss().discriminator, (real_logits, fake_logits))
    given = seen_by_generator(loss(), real_logits)
    assert torch.autograd.gradcheck(lambda logits: loss().generator(given, logits), fake_logits)


@pytest.mark.parametrize("loss", LOSSES)
def test_descent_moves_logits_to_where_each_player_wants_them(loss):
    real_logits = torch.tensor([0.4, -0.3], requires_grad=True)  # within the hinges
    fake_logits = torch.tensor([0.2, 0.6], requires_grad=True)
    loss().discriminator(real_logits, fake_logits).backward()
    assert (real_logits.grad < 0).all() and (fake_logits.grad > 0).all()
    fake_logits.grad = None
    loss().generator(seen_by_generator(loss, real_logits), fake_logits).backward()
    assert (fake_logits.grad < 0).all()


def test_minimax_gradient_vanishes_where_the_non_saturating_one_does_not():
    rejected = torch.tensor([-20.0], requires_grad=True)
    (vanished,) = torch.autograd.grad(Minimax().generator(None, rejected), rejected)
    (kept,) = torch.autograd.grad(NonSaturating().generator(None, rejected), rejected)
    assert abs(vanished) < 1e-8
    assert_close(kept, torch.tensor([-1.0]))


def test_hinge_is_content_with_logits_beyond_one():
    content = [torch.tensor([1.5, 3.0], requires_grad=True), torch.tensor([-1.5, -3.0], requires_grad=True)]
    d_loss = Hinge().discriminator(*content)
    assert d_loss == 0 and all((gradient == 0).all() for gradient in torch.autograd.grad(d_loss, content))


@pytest.mark.parametrize("loss", [Wasserstein, Relativistic])
def test_losses_of_differences_do_not_see_a_shift_of_all_logits(loss):
    shifted = loss().discriminator(REAL_LOGITS + 7, FAKE_LOGITS + 7)
    assert_close(shifted, loss().discriminator(REAL_LOGITS, FAKE_LOGITS))
    assert loss.threshold is None


def test_relativistic_loss_pairs_images_in_their_order():
    swapped = Relativistic().discriminator(REAL_LOGITS, FAKE_LOGITS.flip(0))
    by_hand = -(math.log(3 / 5) + math.log(3 / 4)) / 2  # differences log 3 - log 2 and log 3
    assert_close(swapped, scalar(by_hand))


@pytest.mark.parametrize("loss", WITH_PROBABILITIES)
@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_scale_that_is_not_positive_is_refused_by_its_key(loss, scale):
    with pytest.raises(ValueError, match=f"^discriminator_scale={scale}"):
        loss(discriminator_scale=scale)


@pytest.mark.parametrize("loss", WITH_PROBABILITIES)
@pytest.mark.parametrize("smoothing", [-0.1, 0.5, 1.0])
def test_label_smoothing_out_of_range_is_refused_by_its_key(loss, smoothing):
    with pytest.raises(ValueError, match=rf"^label_smoothing={smoothing} must lie in \[0, 0\.5\)"):
        loss(label_smoothing=smoothing)
