"""Spectral normalisation and minibatch standard deviation, in the layers and in the families that have them."""

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from test_gan import BATCHES, LATENT_DIM, SHAPE, fit, same, small_gan, weights
from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.testing import assert_close

from gan_lightning.callbacks.console import Console
from gan_lightning.callbacks.dashboard import Dashboard
from gan_lightning.callbacks.network_table import network_rows
from gan_lightning.models import dcgan, mlp, resnet
from gan_lightning.models.layers import MinibatchStd, add_spectral_norm
from gan_lightning.runs.checkpoint import load_gan

FAMILIES = {"mlp": mlp, "dcgan": dcgan, "resnet": resnet}
SMALL = {
    "mlp": {"hidden": [16]},
    "dcgan": {"base_channels": 4, "batch_norm": False},
    "resnet": {"base_channels": 4, "spectral_norm": False},
}


def images(batch, shape=SHAPE, seed=0):
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def discriminator(family, **settings):
    torch.manual_seed(0)
    return FAMILIES[family].Discriminator(SHAPE, **SMALL[family] | settings)


def layers_with_weights(network):
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


# --- Spectral norm -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_largest_singular_value_of_every_weight_is_one(family):
    network = discriminator(family, spectral_norm=True)
    for _ in range(200):  # one power iteration each
        network(images(4))
    for layer in layers_with_weights(network):
        assert is_parametrized(layer, "weight")
        matrix = layer.weight.detach().flatten(1)  # (out, in * k * k)
        assert_close(torch.linalg.matrix_norm(matrix, 2), torch.tensor(1.0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_spectral_norm_divides_the_weights_that_init_drew(family):
    plain, normalised = discriminator(family), discriminator(family, spectral_norm=True)
    for before, after in zip(layers_with_weights(plain), layers_with_weights(normalised), strict=True):
        original = after.parametrizations.weight.original
        assert torch.equal(original, before.weight)
        ratio = before.weight / after.weight
        assert_close(ratio, torch.full_like(ratio, ratio.flatten()[0].item()), rtol=1e-4, atol=1e-6)


def test_spectral_norm_is_for_what_has_a_matrix_and_leaves_biases():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 1))
    add_spectral_norm(network)
    assert [is_parametrized(layer) for layer in network] == [True, False, False, True]
    assert network[0].bias is not None and not is_parametrized(network[0], "bias")


@pytest.mark.parametrize("num_classes", [4, 10, 100])
@pytest.mark.parametrize("family", FAMILIES)
def test_spectral_norm_leaves_the_class_its_say_beside_the_pixels(family, num_classes):
    """An embedding is a part of the image: the whole table divided by its largest singular value is all but zero."""

    def spread(**settings):
        network, x = discriminator(family, conditioning="embedding", num_classes=num_classes, **settings), images(16)
        labels = torch.arange(num_classes).repeat_interleave(len(x))
        for _ in range(20):  # one power iteration each
            network(x, labels[: len(x)])
        logits = network(x.repeat(num_classes, 1, 1, 1), labels).detach().view(num_classes, len(x))
        return (logits.std(dim=0).mean() / logits.std(dim=1).mean()).item()  # over classes, by that over images

    assert 0.5 < spread(spectral_norm=True) / spread() < 2


@pytest.mark.parametrize("family", FAMILIES)
def test_largest_singular_value_of_a_projections_embedding_is_one(family):
    network = discriminator(family, spectral_norm=True, conditioning="projection", num_classes=3)
    for _ in range(200):
        network(images(4), torch.arange(4) % 3)
    weight = network.layers[-1].embed.weight.detach()
    assert_close(torch.linalg.matrix_norm(weight, 2), torch.tensor(1.0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_spectral_norm_in_evaluation_moves_nothing(family):
    network = discriminator(family, spectral_norm=True).eval()
    before = weights(network)
    network(images(2))
    assert same(before, weights(network))


# --- Minibatch standard deviation ----------------------------------------------------------------------------


def test_feature_is_the_mean_deviation_within_each_group():
    x = torch.tensor([[0.0, 5.0], [2.0, 5.0], [1.0, 1.0], [1.0, 1.0]]).view(4, 2, 1, 1).expand(4, 2, 3, 3)
    y = MinibatchStd(group_size=2)(x)
    assert y.shape == (4, 3, 3, 3) and torch.equal(y[:, :2], x)
    # Deviations 1 and 0 in the first group, 0 and 0 in the second; 1e-8 under the root is 1e-4 of it.
    assert_close(y[:, 2, 0, 0], torch.tensor([0.5, 0.5, 0.0, 0.0]), rtol=0, atol=1.1e-4)
    assert (y[:, 2] == y[:, 2, :1, :1]).all()
    assert_close(MinibatchStd(group_size=2)(x[:, :, 0, 0]), y[:, :, 0, 0])  # (B, F)


def test_feature_of_a_group_does_not_depend_on_the_others():
    layer, x = MinibatchStd(4), torch.randn(8, 3, 2, 2)
    assert_close(layer(x), torch.cat([layer(x[:4]), layer(x[4:])]))


def test_equal_images_give_finite_gradients():
    x = torch.ones(4, 2, requires_grad=True)
    MinibatchStd()(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_batch_that_is_no_multiple_of_the_group_is_refused_in_training_alone(batch):
    layer, x = MinibatchStd(), torch.randn(batch, 3)
    with pytest.raises(ValueError, match=rf"data\.batch_size: .*{batch}, must be divisible by 4 for .*minibatch_std"):
        layer(x)
    assert layer.eval()(x).shape == (batch, 4)


@pytest.mark.parametrize("family", FAMILIES)
def test_minibatch_std_reaches_the_logits(family):
    network, x = discriminator(family, minibatch_std=True), images(8)
    alone, among_others = network(x[:4]), network(torch.cat([x[:1], images(3, seed=1)]))
    assert alone.shape == (4,)
    assert abs(alone[0] - among_others[0]) > 1e-6
    assert abs(discriminator(family)(x)[0] - discriminator(family)(x[:1])[0]) < 1e-6


# --- Both in a run -------------------------------------------------------------------------------------------

BOTH = {"spectral_norm": True, "minibatch_std": True}


@pytest.mark.parametrize("family", FAMILIES)
def test_network_table_counts_every_parameter_once_under_its_layers_name(family):
    gan = small_gan(discriminator=discriminator(family, **BOTH))
    before = weights(gan.discriminator)
    rows = network_rows(gan)["discriminator"]
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in gan.discriminator.parameters())
    plain = network_rows(small_gan(discriminator=discriminator(family, minibatch_std=True)))["discriminator"]
    assert rows == plain and "MinibatchStd" in [row.layer for row in rows]
    assert same(before, weights(gan.discriminator))  # looking moves no singular vector


@pytest.mark.parametrize("family", FAMILIES)
def test_watching_a_run_changes_nothing(tmp_path, family):
    def trained(**settings):
        gan = small_gan(discriminator=discriminator(family, **BOTH))
        fit(gan, tmp_path, BATCHES, **settings)
        return weights(gan)

    watchers = [Console(every_n_steps=1), Dashboard()]
    logger = TensorBoardLogger(tmp_path, name="", version="")
    assert same(trained(), trained(callbacks=watchers, logger=logger))


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpoint_loads_with_the_same_logits(tmp_path, family):
    module = f"gan_lightning.models.{family}"
    networks = {
        "generator": {"_target_": "gan_lightning.models.mlp.Generator", "latent_dim": LATENT_DIM, "image_shape": SHAPE},
        "discriminator": {"_target_": f"{module}.Discriminator", "image_shape": SHAPE, **SMALL[family], **BOTH},
    }
    gan = small_gan(
        generator=mlp.Generator(LATENT_DIM, SHAPE), discriminator=discriminator(family, **BOTH), networks=networks
    )
    trainer = fit(gan, tmp_path, 3)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = load_gan(tmp_path / "last.ckpt")
    assert same(weights(gan.discriminator), weights(loaded.discriminator))
    gan.eval()
    assert torch.equal(gan.discriminator(images(4)), loaded.discriminator(images(4)))
    assert torch.equal(gan.sample(4), loaded.sample(4))
