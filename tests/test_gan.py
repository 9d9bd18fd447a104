import copy
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf
from torch import nn
from torch.testing import assert_close

from gan_lightning.callbacks.console import Console, ProgressBar
from gan_lightning.callbacks.dashboard import Dashboard
from gan_lightning.callbacks.pictures import Pictures
from gan_lightning.callbacks.scalars import Scalars
from gan_lightning.conditioning import Conditioning
from gan_lightning.data import ImageDataModule
from gan_lightning.ema import EMA
from gan_lightning.gan import GAN
from gan_lightning.losses import NonSaturating
from gan_lightning.models import dcgan, mlp
from gan_lightning.models.check import check_shapes
from gan_lightning.noise import derive_seed
from gan_lightning.penalties import R1

SHAPE = (1, 8, 8)
LATENT_DIM = 4
BATCH_SIZE = 8
BATCHES = 6  # in an epoch


class RandomImages:
    """A data set of noise: a Reader that needs no files."""

    def fetch(self, root):
        pass

    def read(self, root, split):
        num = BATCH_SIZE * BATCHES
        images = torch.randint(256, (num, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return images, torch.zeros(num, dtype=torch.int64)


def small_gan(seed=0, **settings):
    """BatchNorm in G and dropout in D: what is easily disturbed by those who watch."""
    torch.manual_seed(seed)
    networks = {
        "generator": dcgan.Generator(LATENT_DIM, SHAPE, base_channels=4),
        "discriminator": mlp.Discriminator(SHAPE, hidden=[16], dropout=0.2),
    }
    return GAN(**(networks | {"latent_dim": LATENT_DIM, "seed": seed} | settings))


def fit(gan, folder, iterations=3, *, logger=False, callbacks=(), data=True, **settings):
    """Train for some iterations; returns the Trainer."""
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=iterations,
        logger=logger,
        callbacks=list(callbacks),
        limit_val_batches=0,
        **{
            "log_every_n_steps": 1,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "enable_checkpointing": False,
        }
        | settings,
    )
    trainer.fit(gan, ImageDataModule(folder, RandomImages(), SHAPE, batch_size=BATCH_SIZE) if data is True else data)
    return trainer


def weights(network):
    """A copy of all parameters and buffers."""
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(before, after):
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


class Calls(Callback):
    """What goes through each network, in order: (network, input, output), one list per iteration."""

    def __init__(self):
        self.iterations = []
        self.batches = []

    def on_train_start(self, trainer, gan):
        for name in ("generator", "discriminator"):
            getattr(gan, name).register_forward_hook(
                lambda network, inputs, output, name=name: self.iterations[-1].append(
                    (name, inputs[0].detach().clone())
                )
            )

    def on_train_batch_start(self, trainer, gan, batch, batch_idx):
        self.batches.append(batch[0].clone())
        self.iterations.append([])

    def inputs(self, name, iteration):
        return [given for network, given in self.iterations[iteration] if network == name]


def watched_optimizer(record, networks):
    """SGD that notes both networks' weights before and after each of its steps."""

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            before = {name: weights(network) for name, network in networks.items()}
            result = super().step(closure)
            record.append((before, {name: weights(network) for name, network in networks.items()}))
            return result

    return lambda parameters: Watched(parameters, lr=0.1)


def watched_gan(**settings):
    """A GAN, and the weights before and after each step of D and of G."""
    steps, networks = {"discriminator": [], "generator": []}, {}
    optimizers = {f"{name}_optimizer": watched_optimizer(record, networks) for name, record in steps.items()}
    gan = small_gan(**optimizers, **settings)
    networks |= {"generator": gan.generator, "discriminator": gan.discriminator}
    return gan, steps


# --- The step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reuse_fake", [False, True])
@pytest.mark.parametrize(("stepped", "other"), [("discriminator", "generator"), ("generator", "discriminator")])
def test_step_of_one_network_leaves_the_other_unchanged(tmp_path, stepped, other, reuse_fake):
    gan, steps = watched_gan(reuse_fake=reuse_fake, penalty=R1(1.0))
    fit(gan, tmp_path)
    assert len(steps[stepped]) == 3
    for before, after in steps[stepped]:
        assert same(before[other], after[other])
        assert not same(before[stepped], after[stepped])


@pytest.mark.parametrize("reuse_fake", [False, True])
def test_nothing_but_its_own_steps_changes_a_networks_weights(tmp_path, reuse_fake):
    gan, steps = watched_gan(reuse_fake=reuse_fake)
    fit(gan, tmp_path)
    for name, record in steps.items():
        parameters = [key for key, _ in getattr(gan, name).named_parameters()]  # statistics do move in between
        for (_, after), (before, _) in pairwise(record):
            assert all(torch.equal(after[name][key], before[name][key]) for key in parameters)


def trained_once(folder, lr, **settings):
    """A GAN of MLPs after one iteration of plain gradient descent, G and D as they were before it, its real images."""
    networks = {"discriminator": mlp.Discriminator(SHAPE, [16]), "generator": mlp.Generator(LATENT_DIM, SHAPE, [16])}
    sgd = {f"{name}_optimizer": lambda parameters: torch.optim.SGD(parameters, lr=lr) for name in networks}
    gan = small_gan(**settings, **networks, **sgd)
    G, D = copy.deepcopy(gan.generator), copy.deepcopy(gan.discriminator)
    calls = Calls()
    fit(gan, folder, 1, callbacks=[calls])
    return gan, G, D, calls.batches[0]


def descend(network, loss, lr):
    """One step of plain gradient descent, written out."""
    parameters = list(network.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.data -= lr * gradient


@pytest.mark.parametrize("reuse_fake", [False, True])
def test_update_equals_the_gradients_of_algorithm_1(tmp_path, reuse_fake):
    """D's gradient ascends on m real and m generated images, then G's on its own, written out for one iteration."""
    gan, G, D, real = trained_once(tmp_path, lr=0.5, seed=5, reuse_fake=reuse_fake, penalty=R1(0.7))
    noise = torch.Generator().manual_seed(derive_seed(5, 0))
    z = torch.randn(BATCH_SIZE, LATENT_DIM, generator=noise)
    z_again = z if reuse_fake else torch.randn(BATCH_SIZE, LATENT_DIM, generator=noise)

    x = real.clone().requires_grad_()
    (slope,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
    value = D(real).sigmoid().log().mean() + (1 - D(G(z)).sigmoid()).log().mean()
    loss = -value + 0.7 / 2 * slope.square().sum(dim=(1, 2, 3)).mean()
    descend(D, loss, lr=0.5)
    descend(G, -D(G(z_again)).sigmoid().log().mean(), lr=0.5)
    assert_close(gan.discriminator.state_dict(), D.state_dict())
    assert_close(gan.generator.state_dict(), G.state_dict())


@pytest.mark.parametrize(("n_critic", "iterations", "generator_steps"), [(1, 4, 4), (5, 13, 2), (5, 4, 0)])
def test_global_step_counts_iterations_for_any_n_critic(tmp_path, n_critic, iterations, generator_steps):
    gan, steps = watched_gan(n_critic=n_critic)
    calls = Calls()
    trainer = fit(gan, tmp_path, iterations, callbacks=[calls])
    assert trainer.global_step == gan.global_step == len(calls.iterations) == iterations
    assert len(steps["discriminator"]) == iterations
    assert len(steps["generator"]) == generator_steps == iterations // n_critic
    turns = [len(calls.inputs("discriminator", t)) == 3 for t in range(iterations)]
    assert turns == [(t + 1) % n_critic == 0 for t in range(iterations)]


def test_discriminator_sees_real_images_once_per_iteration(tmp_path):
    calls = Calls()
    fit(small_gan(), tmp_path, callbacks=[calls])
    for t, real in enumerate(calls.batches):
        first, *generated = calls.inputs("discriminator", t)
        assert torch.equal(first, real)
        assert len(generated) == 2 and not any(torch.equal(images, real) for images in generated)


def test_generator_loss_that_looks_at_real_logits_gets_them(tmp_path):
    class Relativistic(NonSaturating):
        needs_real_logits = True
        given = None

        def generator(self, real_logits, fake_logits):
            self.given = real_logits
            return (real_logits - fake_logits).mean()

    calls = Calls()
    fit(small_gan(loss=(loss := Relativistic())), tmp_path, 1, callbacks=[calls])
    assert loss.given.shape == (BATCH_SIZE,)
    assert [torch.equal(images, calls.batches[0]) for images in calls.inputs("discriminator", 0)] == [
        True, False, True, False,
    ]  # fmt: skip


def test_generators_turn_draws_fresh_noise(tmp_path):
    calls = Calls()
    fit(small_gan(reuse_fake=False), tmp_path, callbacks=[calls])
    drawn = [z for t in range(3) for z in calls.inputs("generator", t)]
    assert len(drawn) == 6
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_reuse_fake_judges_the_same_images_in_both_turns(tmp_path):
    calls = Calls()
    fit(small_gan(reuse_fake=True), tmp_path, callbacks=[calls])
    for t in range(3):
        assert len(calls.inputs("generator", t)) == 1
        _, in_ds_turn, in_gs_turn = calls.inputs("discriminator", t)
        assert torch.equal(in_ds_turn, in_gs_turn)


@pytest.mark.parametrize("n_critic", [1, 2])
def test_requires_grad_of_both_networks_is_as_before(tmp_path, n_critic):
    gan = small_gan(n_critic=n_critic)
    fit(gan, tmp_path)
    assert all(
        parameter.requires_grad for network in (gan.generator, gan.discriminator) for parameter in network.parameters()
    )


@pytest.mark.parametrize("n_critic", [1, 2, 5])
def test_average_follows_the_generator_by_images_not_by_steps(tmp_path, n_critic):
    """Each turn of G moves it by what n_critic * B images are worth, warm-up included."""
    gan, steps = watched_gan(n_critic=n_critic, ema=EMA(half_life_kimg=0.05, warmup=0.6))
    start = weights(gan.generator)
    fit(gan, tmp_path, 3 * n_critic)
    images = BATCH_SIZE * n_critic  # for each turn of G
    decays = [0.5 ** (images / min(50, 0.6 * turn * images)) for turn in (1, 2, 3)]
    assert len(steps["generator"]) == 3
    for key, _ in gan.generator.named_parameters():
        # The closed form: what each turn's weights count for, those of the start too.
        expected = decays[0] * decays[1] * decays[2] * start[key]
        for turn, (_, after) in enumerate(steps["generator"]):
            expected = expected + (1 - decays[turn]) * math.prod(decays[turn + 1 :]) * after["generator"][key]
        assert_close(gan.ema.generator.state_dict()[key], expected)


# --- Randomness --------------------------------------------------------------------------------------------


def trained(folder, seed=0, **settings):
    gan = small_gan(seed, ema=EMA(), penalty=R1(0.3))
    fit(gan, folder, **settings)
    return weights(gan)


def test_same_seed_gives_the_same_weights_bit_by_bit(tmp_path):
    first = trained(tmp_path)
    torch.randn(7)  # whatever was drawn before
    assert same(first, trained(tmp_path))


def test_another_seed_gives_other_weights(tmp_path):
    gans = [small_gan(), small_gan()]  # the same initial weights
    for seed, gan in enumerate(gans):
        gan.seed = seed
        fit(gan, tmp_path)
    assert not same(*map(weights, gans))


def test_watching_a_run_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)  # else there is no progress bar
    watchers = [
        Pictures(num_images=4),
        Scalars(),
        Console(every_n_steps=1),
        ProgressBar(),
        Dashboard(),
    ]
    assert watchers[3].is_enabled
    watched = trained(
        tmp_path,
        iterations=2 * BATCHES,
        callbacks=watchers,
        logger=TensorBoardLogger(tmp_path, name="", version=""),
        log_every_n_steps=1,
        enable_progress_bar=True,
    )
    assert len(list((tmp_path / "samples").glob("epoch_*.png"))) == 3
    assert same(watched, trained(tmp_path, iterations=2 * BATCHES))


def latents(rank, world_size, draws=2, iteration=7):
    gan = small_gan()
    gan.trainer = SimpleNamespace(world_size=world_size, global_rank=rank, global_step=iteration)
    gan.seed_iteration()
    return [gan.sample_latent(torch.empty(12 // world_size, *SHAPE)) for _ in range(draws)]


def test_rows_of_all_devices_are_the_noise_of_one():
    for whole, *parts in zip(latents(0, 1), *(latents(rank, 3) for rank in range(3)), strict=True):
        assert whole.shape == (12, LATENT_DIM)
        assert torch.equal(torch.cat(parts), whole)


def test_noise_is_standard_normal_and_another_one_in_each_iteration():
    first, second = latents(0, 1)[0], latents(0, 1, iteration=8)[0]
    assert not torch.equal(first, second)
    gan = small_gan(latent_dim=1000)
    gan.trainer = SimpleNamespace(world_size=1, global_rank=0, global_step=0)
    gan.seed_iteration()
    z = gan.sample_latent(torch.empty(50, *SHAPE))
    assert_close(torch.stack([z.mean(), z.std()]), torch.tensor([0.0, 1.0]), rtol=0, atol=0.015)


def test_dropout_differs_between_devices():
    masks = []
    for rank in range(2):
        latents(rank, world_size=2)
        masks.append(torch.rand(5))
    assert not torch.equal(*masks)


def test_seeds_of_neighbours_are_unrelated():
    parts = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1)]
    assert len({derive_seed(*numbers) for numbers in parts}) == len(parts)
    assert derive_seed(3, 1) == derive_seed(3, 1)


# --- Samples -----------------------------------------------------------------------------------------------


def test_sample_depends_on_its_seed_alone():
    gan = small_gan()
    first = gan.sample(5, seed=1)
    torch.manual_seed(99)
    assert torch.equal(gan.sample(5, seed=1), first)
    assert not torch.equal(gan.sample(5, seed=2), first)
    assert first.shape == (5, *SHAPE) and first.dtype == torch.float32 and not first.requires_grad


def test_sample_is_one_image_per_z_whatever_stands_beside_it(tmp_path):
    gan = small_gan()
    fit(gan, tmp_path)
    z = torch.randn(6, LATENT_DIM)
    assert_close(gan.generate(z)[2:3], gan.generate(z[2:3]), rtol=0, atol=1e-5)


def test_sample_leaves_the_generator_as_it_was():
    gan = small_gan()
    before = weights(gan)
    assert gan.generator.training
    gan.sample(4)
    assert gan.generator.training and all(layer.training for layer in gan.generator.modules())
    assert same(before, weights(gan))


def test_sample_comes_from_the_averaged_generator_where_there_is_one():
    gan = small_gan(ema=EMA())
    nn.init.zeros_(gan.ema.generator.layers[-2].weight)
    assert gan.sample(2).unique().numel() == 1
    assert small_gan().sample(2).unique().numel() > 1


# --- Bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["latent_dim", "n_critic"])
def test_count_below_one_is_refused_by_its_key(key):
    with pytest.raises(ValueError, match=f"{key}=0 must be a whole number, 1 or more"):
        small_gan(**{key: 0})


@pytest.mark.parametrize("name", ["generator", "discriminator"])
def test_value_that_an_optimizer_refuses_is_named_with_its_owner(tmp_path, name):
    gan = small_gan(**{f"{name}_optimizer": lambda parameters: torch.optim.Adam(parameters, lr=-1.0)})
    with pytest.raises(ValueError, match=rf"optimizer\.{name}: Invalid learning rate: -1"):
        fit(gan, tmp_path)


# --- What is handed in from Python -------------------------------------------------------------------------


class Alone(nn.Module):
    """A network that looks at no labels, and does not take any."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return self.network(inputs, None)


@pytest.mark.parametrize("name", ["generator", "discriminator"])
@pytest.mark.parametrize("wrap", [Alone, nn.Sequential, lambda network: torch.compile(Alone(network), backend="eager")])
def test_a_network_that_takes_no_labels_is_refused_when_the_gan_is_made(name, wrap):
    network = wrap(getattr(small_gan(), name))
    with pytest.raises(ValueError, match=rf"^{name}: .*; write forward\(self, (z|images), labels=None\)$"):
        small_gan(**{name: network})


@pytest.mark.parametrize("num", [-1, 0, 2.5, "4", None])
def test_samples_of_no_number_are_refused(num):
    with pytest.raises(ValueError, match=rf"^num={num} must be a whole number, 1 or more$"):
        small_gan().sample(num)


@pytest.mark.parametrize("seed", [-1, 0.5])
def test_samples_of_no_seed_are_refused(seed):
    with pytest.raises(ValueError, match=rf"^seed={seed} must be a whole number, 0 or more$"):
        small_gan().sample(4, seed=seed)


@pytest.mark.parametrize("labels", [[0, 1], torch.zeros(3, dtype=torch.int64), torch.zeros(2)])
def test_samples_of_labels_of_another_form_are_refused(labels):
    gan = small_gan()
    gan.conditioning = Conditioning(2)
    with pytest.raises(ValueError, match=r"^labels must be \(2,\) int64 from 0 to 1$"):
        gan.sample(2, labels=labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"discriminator": mlp.Discriminator((1, 9, 9), [16])}, r"^data\.image_shape=\[1, 8, 8\] is not what .*mat1"),
        (
            {"generator": mlp.Generator(LATENT_DIM, (1, 9, 9), [16])},
            r"the generator makes images of \[1, 9, 9\]; build",
        ),
        ({"latent_dim": LATENT_DIM + 1}, r"^latent_dim=5 is not what the networks take"),
    ],
    ids=["discriminator", "generator", "latent_dim"],
)
def test_networks_of_another_size_than_the_data_are_refused_before_training(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message) as refused:
        fit(small_gan(**settings), tmp_path)
    assert "\n" not in str(refused.value)


def test_looking_at_the_sizes_leaves_the_networks_as_they_were():
    gan = small_gan(ema=EMA())
    before = weights(gan)
    check_shapes(gan.generator, gan.discriminator, gan.latent_dim, None, SHAPE)
    assert same(weights(gan), before) and gan.generator.training and gan.discriminator.training


@pytest.mark.filterwarnings("ignore")  # what torch.compile says of the loops that it leaves alone
@pytest.mark.parametrize("compiled", ["networks", pytest.param("gan", marks=pytest.mark.slow)])
def test_compiled_networks_and_a_compiled_gan_train_as_they_would_alone(tmp_path, compiled):
    def made(compile_network):
        names = ("generator", "discriminator")
        return small_gan(ema=EMA(), **{name: compile_network(getattr(small_gan(), name)) for name in names})

    def compile_it(module):
        return torch.compile(module, backend="eager")

    fit(plain := made(lambda network: network), tmp_path, 2)
    gan = made(compile_it if compiled == "networks" else lambda network: network)
    fit(compile_it(gan) if compiled == "gan" else gan, tmp_path, 2)
    assert_close(gan.sample(4), plain.sample(4))


def test_a_device_without_room_is_not_taken_for_networks_of_another_size():
    gan = small_gan()

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    gan.generator.forward = full
    with pytest.raises(torch.OutOfMemoryError):
        check_shapes(gan.generator, gan.discriminator, gan.latent_dim, None, SHAPE)


@pytest.mark.parametrize(
    "part",
    [
        *({"loss": "hinge"}, {"loss": 1}, {"penalty": 10}, {"penalty": "r1"}, {"ema": True}, {"ema": 0.99}),
        *({"conditioning": "projection"}, {"conditioning": 10}, {"augment": "diffaugment"}, {"constraint": 0.01}),
    ],
    ids=str,
)
def test_a_part_that_is_none_is_refused_with_the_line_to_write(part):
    ((name, value),) = part.items()
    with pytest.raises(ValueError, match=rf"^{name}={value!r} cannot be used; write {name}=gan_lightning\."):
        small_gan(**part)


@pytest.mark.parametrize("empty", [{}, OmegaConf.create({})], ids=["dict", "DictConfig"])
def test_an_empty_mapping_counts_as_no_part(tmp_path, empty):
    parts = dict.fromkeys(("penalty", "constraint", "augment", "conditioning"), empty)
    fit(gan := small_gan(**parts), tmp_path, 2)
    fit(plain := small_gan(), tmp_path, 2)
    assert gan.penalty is gan.constraint is gan.augment is None and gan.conditioning.num_classes == 0
    assert same(weights(gan), weights(plain))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's, of the loader
@pytest.mark.parametrize("batches", ["images alone", "a tuple of one"])
def test_a_batch_that_is_no_pair_is_refused_with_the_line_to_write(tmp_path, batches):
    images = torch.zeros(8, *SHAPE)
    data = images if batches == "images alone" else torch.utils.data.TensorDataset(images)
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"^a batch must be \(images, labels\); .*ImageDataModule.from_tensors"):
        trainer.fit(small_gan(), torch.utils.data.DataLoader(data, batch_size=4))
