import pytest
import torch
from lightning import Callback
from test_gan import BATCH_SIZE, fit, small_gan
from torch import nn
from torch.testing import assert_close

from gan_lightning.penalties import R1, R1R2, R2, GradientPenalty, WeightClipping
from gan_lightning.schedules import Cosine, Linear

PENALTIES = [GradientPenalty, R1, R2, R1R2]
ZERO_CENTRED = {R1: 1, R2: 1, R1R2: 2}  # how many means it is the sum of


class Plane(nn.Module):
    """D(x) = w . x, whose gradient is w everywhere."""

    def __init__(self, channels, scale=1.0):
        super().__init__()
        weight = torch.randn(channels, 4, 4, generator=torch.Generator().manual_seed(channels))
        self.weight = nn.Parameter(scale * weight)

    def forward(self, images, labels=None):
        return (images * self.weight).sum(dim=(1, 2, 3))


class Squared(Plane):
    """D(x) = (w . x)^2 / 2, whose gradient at x is (w . x) w."""

    def forward(self, images, labels=None):
        return super().forward(images).square() / 2


def images(channels, seed=0, batch=5):
    return torch.rand(batch, channels, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def mix(batch=5):
    return torch.rand(batch, 1, generator=torch.Generator().manual_seed(9))


def squared_slopes(critic, x):
    """Of Squared, worked by hand."""
    return (x * critic.weight).sum(dim=(1, 2, 3)).square() * critic.weight.square().sum()


# --- Worked by hand ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("penalty", ZERO_CENTRED)
def test_zero_centred_penalty_of_a_plane_is_half_its_squared_length_for_each_mean(penalty, channels):
    critic = Plane(channels)
    value = penalty(weight=10.0)(critic, images(channels), images(channels, seed=1), None, mix())
    assert_close(value, ZERO_CENTRED[penalty] * 10.0 / 2 * critic.weight.square().sum())


@pytest.mark.parametrize("channels", [1, 3])
def test_gradient_penalty_of_a_plane_is_its_squared_distance_from_slope_one(channels):
    critic = Plane(channels)
    value = GradientPenalty(weight=10.0)(critic, images(channels), images(channels, seed=1), None, mix())
    assert_close(value, 10.0 * (critic.weight.square().sum().sqrt() - 1).square())
    of_slope_one = Plane(channels, scale=1 / critic.weight.norm().item())
    assert GradientPenalty(10.0)(of_slope_one, images(channels), images(channels), None, mix()) < 1e-10


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalty_is_a_mean_over_the_images_of_its_paper(penalty, channels):
    critic, real, fake = Squared(channels), images(channels), images(channels, seed=1)
    u = mix().view(-1, 1, 1, 1)
    by_hand = {
        R1: 0.15 * squared_slopes(critic, real).mean(),
        R2: 0.15 * squared_slopes(critic, fake).mean(),
        R1R2: 0.15 * (squared_slopes(critic, real).mean() + squared_slopes(critic, fake).mean()),
        GradientPenalty: 0.3 * (squared_slopes(critic, u * real + (1 - u) * fake).sqrt() - 1).square().mean(),
    }
    assert_close(penalty(weight=0.3)(critic, real, fake, None, mix()), by_hand[penalty])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("penalty", ZERO_CENTRED)
def test_zero_centred_penalty_teaches_the_discriminator_to_be_flat(penalty, channels):
    critic = Plane(channels)
    penalty(weight=2.0)(critic, images(channels), images(channels, seed=1), None, mix()).backward()
    assert_close(critic.weight.grad, ZERO_CENTRED[penalty] * 2 * critic.weight.detach())  # of weight / 2 * |w|^2


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_gradient_penalty_teaches_slope_one_from_either_side(scale):
    critic = Plane(1, scale=scale)
    GradientPenalty(weight=10.0)(critic, images(1), images(1, seed=1), None, mix()).backward()
    length = critic.weight.detach().norm()
    assert_close(critic.weight.grad, 20 * (length - 1) * critic.weight.detach() / length)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_gradient_equals_finite_differences(penalty):
    critic, real, fake, u = Squared(1).double(), images(1).double(), images(1, seed=1).double(), mix().double()

    def value(weight):
        return penalty(0.3)(lambda x, _: (x * weight).sum(dim=(1, 2, 3)).square() / 2, real, fake, None, u)

    assert torch.autograd.gradcheck(value, critic.weight)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_flat_discriminator_has_a_penalty_with_finite_gradients(penalty):
    critic = Plane(1, scale=0.0)
    value = penalty(weight=1.0)(critic, images(1), images(1), None, mix())
    value.backward()
    assert value == (penalty is GradientPenalty)
    assert_close(critic.weight.grad, torch.zeros_like(critic.weight))


# --- How it is called ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalty_is_computed_in_float32_under_bf16_autocast(penalty):
    critic = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, bias=False), nn.Flatten(0))
    dtypes = []
    critic[1].register_forward_hook(lambda layer, inputs, output: dtypes.append((inputs[0].dtype, output.dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        critic(images(1))  # autocast keeps the weights it has cast
        fake = images(1, seed=1).bfloat16()  # as a generator makes them there
        value = penalty(weight=0.3)(lambda x, _: critic(x), images(1), fake, None, mix())
    assert dtypes[0][1] == torch.bfloat16 and set(dtypes[1:]) == {(torch.float32, torch.float32)}
    assert value.dtype == torch.float32
    exact = penalty(weight=0.3)(lambda x, _: critic(x), images(1), fake.float(), None, mix())
    assert_close(value, exact, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalty_leaves_the_images_as_they_are(penalty):
    given = [images(1), images(1, seed=1)]
    before = [x.clone() for x in given]
    penalty(weight=1.0)(Squared(1), *given, None, mix())
    assert not any(x.requires_grad or x.grad is not None for x in given)
    assert all(torch.equal(x, was) for x, was in zip(given, before, strict=True))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalty_hands_labels_to_the_discriminator(penalty):
    seen = []

    def critic(x, labels):
        seen.append(labels)
        return x.sum(dim=(1, 2, 3))

    labels = torch.arange(5)
    penalty(weight=1.0)(critic, images(1), images(1), labels, mix())
    assert seen and all(given is labels for given in seen)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_weight_that_is_not_positive_is_refused_by_its_key(penalty, weight):
    with pytest.raises(ValueError, match=f"^weight={weight}.*penalty=none"):
        penalty(weight=weight)


class Fake:
    """A penalty that keeps what it is given."""

    schedule = None

    def __init__(self):
        self.mixes = []

    def __call__(self, logits, real, fake, labels, mix):
        assert real.shape == fake.shape and not fake.requires_grad
        self.mixes.append(mix)
        return logits(real, labels).sum() * 0


def test_images_are_mixed_in_new_shares_in_every_iteration(tmp_path):
    gan = small_gan(penalty=(penalty := Fake()))
    fit(gan, tmp_path)
    assert all(u.shape == (BATCH_SIZE, 1) and (u >= 0).all() and (u < 1).all() for u in penalty.mixes)
    assert len({value.item() for u in penalty.mixes for value in u}) == 3 * BATCH_SIZE


# --- The schedule of its weight ------------------------------------------------------------------------------


class Penalties(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, gan, outputs, *_):
        self.seen.append(outputs["penalty"].item())


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [(None, [1] * 4), (Linear(), [1, 0.75, 0.5, 0.25]), (Cosine(final=0.2), [1, 0.8828427, 0.6, 0.3171573])],
)
def test_weight_follows_its_schedule_over_the_run(tmp_path, schedule, factors):
    penalties = Penalties()
    still = {"discriminator_optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.0)}
    critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 1), nn.Flatten(0))  # of one slope at all images

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = critic

        def forward(self, x, labels=None):
            return self.layers(x)

    gan = small_gan(discriminator=Critic(), penalty=R1(2.0, schedule=schedule), **still)
    fit(gan, tmp_path, 4, callbacks=[penalties])
    constant = critic[1].weight.square().sum().item()
    assert penalties.seen == pytest.approx([factor * constant for factor in factors])


def test_schedule_is_set_from_the_command_line(compose):
    from gan_lightning.train import build_gan

    gan = build_gan(compose("+schedule@penalty.schedule=cosine", "penalty.schedule.final=0.1"))
    assert isinstance(gan.penalty.schedule, Cosine) and gan.penalty.schedule.final == 0.1
    gan = build_gan(compose("penalty.schedule={_target_: gan_lightning.schedules.Linear, final: 0.5}"))
    assert isinstance(gan.penalty.schedule, Linear) and gan.penalty.schedule.final == 0.5
    assert build_gan(compose()).penalty.schedule is None


def test_schedule_for_no_penalty_is_refused(compose):
    from gan_lightning.cli.checks import check

    with pytest.raises(ValueError, match=r"penalty=\{schedule: .*penalty=none has no settings; choose a penalty"):
        check(compose("penalty=none", "+schedule@penalty.schedule=cosine"))


# --- Weight clipping -----------------------------------------------------------------------------------------


def test_weights_beyond_the_limit_are_cut_to_it_others_left():
    layer = nn.Linear(2, 2)
    layer.weight.data, layer.bias.data = torch.tensor([[0.5, -0.2], [0.05, 0.0]]), torch.tensor([-0.5, 0.09])
    WeightClipping(limit=0.1)(layer)
    assert_close(layer.weight.data, torch.tensor([[0.1, -0.1], [0.05, 0.0]]))
    assert_close(layer.bias.data, torch.tensor([-0.1, 0.09]))


def test_discriminator_alone_is_held_after_each_of_its_steps(tmp_path):
    def largest(network):
        return max(weight.abs().max().item() for weight in network.parameters())

    gan, seen = small_gan(constraint=WeightClipping(0.01)), []
    gan.discriminator.register_forward_pre_hook(lambda network, _: seen.append(largest(network)))
    fit(gan, tmp_path)
    assert len(seen) == 10 and seen[0] > 0.01  # as it was drawn; the first call tries its shape
    assert all(value == pytest.approx(0.01) for value in seen[3:])  # from G's first turn on
    assert largest(gan.generator) > 0.01


@pytest.mark.parametrize("limit", [0.0, -0.01])
def test_limit_that_is_not_positive_is_refused_by_its_key(limit):
    with pytest.raises(ValueError, match=f"^limit={limit}.*constraint=none"):
        WeightClipping(limit)
