"""Conditional GANs: how networks look at labels, what labels do to the losses, who refuses which."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from families import FAMILIES, num_parameters, stir
from families import networks as networks_of
from hydra.errors import InstantiationException
from lightning import Callback
from test_gan import BATCH_SIZE, BATCHES, LATENT_DIM, SHAPE, Calls, fit, same, weights
from torch import nn
from torch.nn.functional import one_hot
from torch.testing import assert_close

from gan_lightning.callbacks.network_table import network_rows
from gan_lightning.cli.errors import explain
from gan_lightning.conditioning import Conditioning
from gan_lightning.data import ImageDataModule
from gan_lightning.ema import EMA
from gan_lightning.gan import GAN
from gan_lightning.models import mlp
from gan_lightning.models.labels import KINDS, Classifier, ConditionalBatchNorm, Embedded, Layers, OneHot, Projection
from gan_lightning.noise import draw_latents
from gan_lightning.penalties import R1
from gan_lightning.train import build_gan, main

K = 3
CONDITIONAL = [kind for kind in KINDS if kind != "none"]
LABELS = torch.tensor([0, 2, 1, 2])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def networks(family, kind, num_classes=K, shape=SHAPE):
    return networks_of(family, shape, conditioning=kind, num_classes=num_classes)


def conditional_gan(family="mlp", kind="projection", **settings):
    generator, discriminator = networks(family, kind)
    return GAN(generator, discriminator, conditioning=Conditioning(K), latent_dim=LATENT_DIM, **settings)


def labelled(num_classes=K, **settings):
    num = BATCH_SIZE * BATCHES
    images = torch.randint(256, (num, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageDataModule.from_tensors(
        images, torch.arange(num) % K, batch_size=BATCH_SIZE, num_classes=num_classes, **settings
    )


# --- Layers ------------------------------------------------------------------------------------------------


def test_concat_puts_the_one_hot_label_beside_a_vector():
    x = torch.randn(4, 5)
    assert torch.equal(OneHot(K)(x, LABELS), torch.cat([x, one_hot(LABELS, K).float()], dim=1))


def test_concat_puts_a_plane_for_each_class_beside_an_image():
    x = torch.randn(4, 2, 6, 5)
    out = OneHot(K)(x, LABELS)
    assert out.shape == (4, 2 + K, 6, 5) and torch.equal(out[:, :2], x)
    for image, label in zip(out[:, 2:], LABELS, strict=True):
        assert all((image[k] == float(k == label)).all() for k in range(K))


@pytest.mark.parametrize(("shape", "expected"), [((5,), (5,)), ((2, 6, 5), (1, 6, 5))], ids=["vector", "image"])
def test_embedding_puts_what_is_learned_of_the_class_beside_x(shape, expected):
    layer, x = Embedded(K, shape), torch.randn(4, *shape)
    out = layer(x, LABELS)
    assert torch.equal(out[:, : shape[0]], x)
    for image, label in zip(out[:, shape[0] :], LABELS, strict=True):
        assert torch.equal(image, layer.embed.weight[label].view(expected))


@pytest.mark.parametrize(("norm", "size"), [(nn.BatchNorm1d, ()), (nn.BatchNorm2d, (3, 3))])
def test_conditional_batch_norm_with_equal_rows_is_batch_norm(norm, size):
    plain, conditional = norm(5), ConditionalBatchNorm(norm(5, affine=False), K)
    with torch.no_grad():
        plain.weight.normal_()
        plain.bias.normal_()
        conditional.scale.weight.copy_(plain.weight.expand(K, -1))
        conditional.shift.weight.copy_(plain.bias.expand(K, -1))
    x = torch.randn(4, 5, *size)
    for _ in range(2):
        assert_close(conditional(x, LABELS), plain(x))
        plain.eval()
        conditional.eval()
    assert_close(conditional.norm.running_var, plain.running_var)


def test_conditional_batch_norm_scales_and_shifts_by_the_class():
    layer, x = ConditionalBatchNorm(nn.BatchNorm1d(2, affine=False), K), torch.randn(4, 2)
    assert_close(layer(x, LABELS), layer.norm(x))  # at the start all classes are alike
    with torch.no_grad():
        layer.scale.weight[2], layer.shift.weight[2] = 3.0, 7.0
    expected = torch.where((LABELS == 2).view(-1, 1), 3 * layer.norm(x) + 7, layer.norm(x))
    assert_close(layer(x, LABELS), expected)


@pytest.mark.parametrize("shape", [(5,), (5, 2, 2)], ids=["vector", "image"])
def test_projection_is_psi_plus_the_product_of_embedding_and_features(shape):
    features = torch.randn(4, *shape)
    size = features[0].numel()
    psi = nn.Linear(5, 1) if len(shape) == 1 else nn.Conv2d(5, 1, 2)
    layer = Projection(psi, size, K)
    for i, label in enumerate(LABELS):
        x = features[i].flatten()
        by_hand = psi.weight.flatten() @ x + psi.bias + layer.embed.weight[label] @ x
        assert_close(layer(features, LABELS)[i : i + 1], by_hand)


def test_classifier_gives_a_logit_and_class_logits():
    layer, x = Classifier(nn.Conv2d(5, 1, 2), 20, K), torch.randn(4, 5, 2, 2)
    logits, class_logits = layer(x)
    assert_close(logits, layer.logit(x).flatten())
    assert_close(class_logits, x.flatten(1) @ layer.classify.weight.T + layer.classify.bias)


def test_layers_that_know_of_no_labels_are_not_handed_any():
    layers = Layers(nn.Linear(2, 2), OneHot(K), nn.Linear(2 + K, 1))
    x = torch.randn(4, 2)
    assert_close(layers(x, LABELS), layers[2](layers[1](layers[0](x), LABELS)))


# --- Networks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (1, 64, 64)], ids=str)
def test_networks_have_the_asked_shapes_and_every_parameter_a_gradient(family, kind, shape):
    num_classes, labels = (0, None) if kind == "none" else (K, LABELS)
    generator, discriminator = networks(family, kind, num_classes, shape)
    if family == "r3gan":  # its blocks begin as the identity
        stir(generator)
        stir(discriminator)
    images = generator(torch.randn(4, LATENT_DIM), labels)
    output = discriminator(images, labels)
    outputs = output if kind == "auxiliary" else (output,)
    assert images.shape == (4, *shape) and images.abs().max() <= 1
    assert [part.shape for part in outputs] == [(4,), (4, K)][: len(outputs)]
    sum(part.square().sum() for part in outputs).backward()
    for network in (generator, discriminator):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.any() or name.endswith("bias")  # before BatchNorm it has none, but for rounding


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", CONDITIONAL)
def test_one_z_and_two_labels_give_two_images(family, kind):
    generator = stir(networks(family, kind)[0]).eval()
    z = torch.randn(1, LATENT_DIM).expand(3, -1)
    first, second, again = generator(z, torch.tensor([0, 1, 0]))
    assert not torch.allclose(first, second, atol=1e-3)
    assert_close(first, again)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", CONDITIONAL)
def test_labels_change_the_discriminators_logits_unless_it_has_to_find_them(family, kind):
    discriminator = stir(networks(family, kind)[1]).eval()
    images = torch.rand(1, *SHAPE).expand(2, -1, -1, -1)
    output = discriminator(images, torch.tensor([0, 1]))
    logits = output[0] if isinstance(output, tuple) else output
    assert torch.allclose(logits[0], logits[1]) == (kind == "auxiliary")


@pytest.mark.parametrize("family", FAMILIES)
def test_unconditional_networks_ignore_labels(family):
    generator, discriminator = networks(family, "none", num_classes=0)
    discriminator.eval()  # in training every pass moves the singular vectors of spectral norm
    z = torch.randn(4, LATENT_DIM)
    images = generator(z, LABELS)
    assert torch.equal(images, generator(z)) and torch.equal(discriminator(images, LABELS), discriminator(images))


@pytest.mark.parametrize("kind", CONDITIONAL)
def test_table_of_networks_has_all_weights_of_conditional_ones(kind):
    gan = conditional_gan("dcgan", kind)
    for name, rows in network_rows(gan).items():
        assert sum(row.parameters for row in rows) == num_parameters(getattr(gan, name))


# --- The step ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", CONDITIONAL)
@pytest.mark.parametrize("reuse_fake", [False, True])
def test_conditional_gan_trains_both_networks_and_their_average(tmp_path, family, kind, reuse_fake):
    gan = conditional_gan(family, kind, penalty=R1(1.0), ema=EMA(), reuse_fake=reuse_fake)
    before = weights(gan)
    fit(gan, tmp_path, 4, data=labelled())
    after = weights(gan)
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert all(not torch.equal(before[name], after[name]) for name, _ in gan.named_parameters())


def test_generated_images_are_of_the_real_ones_classes(tmp_path):
    gan, asked, told = conditional_gan(), [], []
    gan.generator.register_forward_hook(lambda _, inputs, __: asked.append(inputs[1]))
    gan.discriminator.register_forward_hook(lambda _, inputs, __: told.append(inputs[1]))
    calls = Calls()
    fit(gan, tmp_path, 1, callbacks=[calls], data=labelled())
    pixels = {
        image.numpy().tobytes(): label for image, label in zip(labelled().images(), labelled().labels(), strict=True)
    }
    asked, told = asked[1:], told[1:]  # the first of each is the look at their sizes
    real = calls.batches[0].add(1).mul(127.5).round().to(torch.uint8)
    classes = torch.stack([pixels[image.numpy().tobytes()] for image in real])
    assert len(asked) == 2 and len(told) == 3
    assert all(torch.equal(labels, classes) for labels in asked + told)


def test_unconditional_gan_hands_on_no_labels(tmp_path):
    generator, discriminator = networks("mlp", "none", num_classes=0)
    gan, told = GAN(generator, discriminator, latent_dim=LATENT_DIM), []
    gan.discriminator.register_forward_hook(lambda _, inputs, __: told.append(inputs[1]))
    fit(gan, tmp_path, 1, data=labelled())
    assert told == [None] * (1 + 3)  # the first is the look at their sizes


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_auxiliary_loss_is_the_mean_of_minus_log_p_of_the_class(weight):
    """AC-GAN's L_C of one batch, by hand."""
    logits, class_logits = torch.tensor([0.5, -1.0]), torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    found, loss = Conditioning(K, weight=weight).split((logits, class_logits), torch.tensor([1, 0]))
    e = torch.e
    expected = -(torch.tensor(e**2 / (e + e**2 + 1)).log() + torch.tensor(1 / (2 + e**3)).log()) / 2
    assert found is logits
    assert_close(loss, weight * expected)
    assert Conditioning(K).split(logits, None) == (logits, 0.0)


def test_class_losses_of_real_and_generated_images_are_in_ds_loss_and_of_generated_ones_in_gs(tmp_path):
    class Losses(Callback):
        def on_train_batch_end(self, trainer, gan, outputs, *_):
            self.d_loss, self.g_loss = outputs["d_loss"].item(), outputs["g_loss"].item()

    found = []
    for class_loss in (0.0, 10.0):
        torch.manual_seed(0)
        gan = conditional_gan("mlp", "auxiliary")
        gan.conditioning.split = lambda output, labels, class_loss=class_loss: (output[0], class_loss)
        fit(gan, tmp_path, 1, callbacks=[losses := Losses()], data=labelled())
        found.append(losses)
    assert found[1].d_loss - found[0].d_loss == pytest.approx(20, abs=1e-4)
    assert found[1].g_loss - found[0].g_loss == pytest.approx(10, abs=1e-4)


# --- Samples -----------------------------------------------------------------------------------------------


def test_samples_are_of_the_classes_asked_for_or_of_all_in_turn():
    gan = conditional_gan(ema=EMA())
    stir(gan.ema.generator).eval()
    (z,) = draw_latents(5, LATENT_DIM, seed=3)
    in_turn = torch.tensor([0, 1, 2, 0, 1])
    with torch.no_grad():
        assert torch.equal(gan.sample(5, seed=3), gan.ema.generator(z, in_turn))
        threes = gan.sample(5, seed=3, labels=torch.full((5,), 2))
        assert torch.equal(threes, gan.ema.generator(z, torch.full((5,), 2)))
    assert not torch.allclose(gan.sample(5, seed=3), threes)


def test_picture_has_a_row_for_each_class_or_for_fifty_of_very_many():
    z = torch.randn(2, LATENT_DIM)
    for num_classes, num_rows in (3, 3), (50, 50), (1000, 50):
        latents, labels = Conditioning(num_classes).rows(z)
        assert torch.equal(latents, z.repeat(num_rows, 1))
        assert labels.shape == (2 * num_rows,) and torch.equal(labels[::2], labels[1::2])
        rows = labels[::2].tolist()
        assert rows[0] == 0 and rows[-1] == num_classes - 1 and len(set(rows)) == num_rows
    assert {row % 10 for row in rows} == set(range(10))  # of stacked digits each is seen in the last channel too


def test_classes_go_on_in_turn_over_the_blocks_of_an_evaluation():
    gan = conditional_gan()
    labels = torch.cat([gan.sample_block(block, size)[1] for block, size in [(0, 500), (1, 500), (2, 7)]])
    assert torch.equal(labels, torch.arange(1007) % K)  # 500 is no multiple of 3


@pytest.mark.parametrize(
    "labels", [torch.tensor([0, 1]), torch.tensor([0, 1, 3]), torch.tensor([-1, 0, 1]), torch.ones(3)],
    ids=["too few", "too high", "negative", "no whole numbers"],
)  # fmt: skip
def test_labels_that_are_none_are_refused(labels):
    with pytest.raises(ValueError, match=r"^labels must be \(3,\) int64 from 0 to 2$"):
        conditional_gan().sample(3, labels=labels)


def test_labels_for_an_unconditional_generator_are_refused_with_the_way_out():
    gan = GAN(*networks("mlp", "none", num_classes=0), latent_dim=LATENT_DIM)
    with pytest.raises(ValueError, match="the networks know of no classes; train with conditioning=projection"):
        gan.sample(2, labels=torch.zeros(2, dtype=torch.int64))


# --- Bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("kind", "num_classes", "message"),
    [
        ("concta", 3, "conditioning=concta must be one of none, concat, embedding, projection, auxiliary"),
        ("concat", 0, r"num_classes=0 must be 2 or more for conditioning=concat; .*conditioning=none"),
        ("projection", 1, "num_classes=1 must be 2 or more"),
        ("none", 3, r"conditioning=none: with num_classes=3 both networks must look at labels"),
    ],
)
@pytest.mark.parametrize("network", ["Generator", "Discriminator"])
def test_networks_refuse_a_conditioning_that_makes_no_sense(family, kind, num_classes, message, network):
    shapes = [LATENT_DIM, SHAPE] if network == "Generator" else [SHAPE]
    with pytest.raises(ValueError, match=message):
        getattr(FAMILIES[family], network)(*shapes, conditioning=kind, num_classes=num_classes)


def test_mlp_without_a_hidden_layer_has_no_place_for_conditional_batch_norm():
    with pytest.raises(ValueError, match=r"^hidden=\[\]: .*; try \[256\]"):
        mlp.Generator(LATENT_DIM, SHAPE, hidden=[], conditioning="projection", num_classes=K)


@pytest.mark.parametrize(("settings", "message"), [
    ({"num_classes": -1}, "^num_classes=-1 must be 2 or more"),
    ({"num_classes": 1}, "^num_classes=1 must be 2 or more"),
    ({"num_classes": 2, "weight": 0}, "^weight=0 must be positive"),
])  # fmt: skip
def test_value_out_of_range_is_refused_by_its_key(settings, message):
    with pytest.raises(ValueError, match=message):
        Conditioning(**settings)


def test_networks_of_other_classes_than_the_conditionings_are_refused():
    with pytest.raises(ValueError, match=r"model\.generator\.num_classes=3 and conditioning\.num_classes=0 must be"):
        GAN(*networks("mlp", "concat"), latent_dim=LATENT_DIM)


def test_data_of_another_number_of_classes_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"^conditioning\.num_classes=3 and data\.num_classes=0 must be the same; .*"):
        fit(conditional_gan(), tmp_path, 1, data=labelled(num_classes=0))


@pytest.mark.parametrize("labels", [torch.arange(6), torch.arange(6) % K - 1], ids=["too high", "negative"])
def test_labels_outside_of_the_classes_are_refused_as_they_are_read(labels):
    with pytest.raises(ValueError, match=r"^data\.num_classes=3: labels must be 0 to 2, and those of images are "):
        ImageDataModule.from_tensors(torch.zeros(6, *SHAPE, dtype=torch.uint8), labels, num_classes=K)


@pytest.mark.parametrize("num_classes", [0, K])
@pytest.mark.parametrize(
    "labels",
    [torch.zeros(5, dtype=torch.int64), torch.zeros(6), torch.zeros(6, 1, dtype=torch.int64), [0] * 7, np.zeros(6)],
    ids=["too few", "floats", "a column", "too many in a list", "an array of floats"],
)
def test_labels_of_another_form_are_refused_before_training(labels, num_classes):
    with pytest.raises(ValueError, match=r"labels must be \(6,\) int64, one for each image, not \([567],"):
        ImageDataModule.from_tensors(torch.zeros(6, *SHAPE, dtype=torch.uint8), labels, num_classes=num_classes)


def test_a_reader_with_labels_of_another_length_is_refused_before_training(tmp_path):
    class Short:
        def fetch(self, root): ...

        def read(self, root, split):
            return torch.zeros(6, *SHAPE, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64)

    with pytest.raises(ValueError, match=r"labels must be \(6,\) int64"):
        ImageDataModule(tmp_path, Short(), SHAPE, batch_size=2).setup("fit")


def test_images_without_labels_have_no_classes():
    with pytest.raises(ValueError, match=r"^num_classes=3: without labels there are no classes; give labels$"):
        ImageDataModule.from_tensors(torch.zeros(6, *SHAPE, dtype=torch.uint8), num_classes=K)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["conditioning=concat", "data.num_classes=0"], "num_classes=0 must be 2 or more"),
        (["conditioning=concat", "model.generator.num_classes=5"], "model.generator.num_classes=5 and conditioning"),
        (["conditioning=concat", "model.discriminator.conditioning=none"], "both networks must look at labels"),
        (["conditioning=auxiliary", "conditioning.weight=-1"], "conditioning.weight=-1 must be positive"),
    ],
)
def test_config_that_makes_no_sense_is_refused_in_one_line(compose, overrides, message):
    with pytest.raises((ValueError, InstantiationException)) as refused:
        build_gan(compose(*overrides))
    line = explain(refused.value, overrides=overrides)
    assert message in line and "\n" not in line


def test_data_with_other_labels_than_configured_is_refused_in_one_line(compose):
    with pytest.raises(
        ValueError, match=r"data\.num_classes=5: labels must be 0 to 4, and those of mnist are 0 to 9; "
    ):
        main(compose("conditioning=projection", "data.num_classes=5"))


# --- From the command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["projection", "auxiliary"])
def test_kinds_can_differ_between_the_networks(compose, kind):
    gan = build_gan(compose(f"conditioning={kind}", "model.generator.conditioning=embedding"))
    assert isinstance(gan.generator.layers[0], Embedded) and gan.conditioning.num_classes == 10


def test_same_seed_gives_the_same_conditional_weights_bit_by_bit(tmp_path):
    ends = []
    for _ in range(2):
        torch.manual_seed(0)
        gan = conditional_gan("dcgan", "projection", penalty=R1(0.3), ema=EMA())
        fit(gan, tmp_path, 3, data=labelled())
        ends.append(weights(gan))
    assert same(*ends)


MNIST = Path("~/.cache/gan_lightning/mnist").expanduser()


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="needs MNIST's files: python -m gan_lightning fetches them")
def test_conditional_run_of_some_minutes_draws_the_class_asked_for(run_cli, tmp_path):
    """On one thread of a CPU."""
    watch = ["metrics.num_samples=2000", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    result = run_cli("experiment=acgan_mnist", "trainer.max_epochs=5", *watch, timeout=1800)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics/conditional_accuracy"] >= 0.95
