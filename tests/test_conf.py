"""Every file under conf/: it explains itself, composes, and what this machine can build runs one batch."""

import json
import re
import shlex

import pytest
import torch
from hydra.errors import ConfigCompositionException, InstantiationException
from hydra.utils import instantiate

from gan_lightning.cli.errors import explain
from gan_lightning.devices import SyncBatchNorm, batch_norms
from gan_lightning.files import conf_dir, groups, options
from gan_lightning.train import build_gan, build_trainer, main

FILES = sorted(path.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*.yaml"))
COMMANDS = sorted(path.stem for path in conf_dir().glob("*.yaml"))
CHOICES = [f"{group}={option}" for group in groups() for option in options(group)]
SMALL = ["data.batch_size=8", "trainer.max_epochs=-1", "trainer.max_steps=1", "trainer.log_every_n_steps=1"]
FEW = ["callbacks.pictures.num_images=4", "callbacks.pictures.nrow=2"]

NOT_RUN = {
    "trainer=gpu": "needs a GPU: its error message is tested below",
    "metrics=judge": "needs a trained judge: the evaluation's own tests run it",
    "metrics=inception": "needs weights that are fetched: likewise",
    "metrics=stacked_mnist": "needs stacks: tests/test_data_stacked.py runs it",
    "trainer=ddp": "starts this process anew: tests/test_ddp.py runs two from the command line",
    **dict.fromkeys((c for c in CHOICES if c.startswith("sweep")), "not for a single run: tests/test_sweeps.py"),
}


def composes(compose, choice):
    """The first command that has this choice, and its config."""
    needs = ["sweep=study"] if choice.startswith("sweep/") else []
    for command in sorted(COMMANDS, key=lambda name: name != "train"):
        try:
            return command, compose(*needs, choice, config_name=command)
        except ConfigCompositionException as error:
            if "Could not override" not in str(error):
                raise
    return None


@pytest.mark.parametrize("file", FILES)
def test_every_file_says_at_its_head_what_it_is(file):
    lines = (conf_dir() / file).read_text(encoding="utf-8").splitlines()
    if lines[0].startswith("# @package"):
        lines = lines[1:]
    assert re.match(r"# \S.{5,}", lines[0]), lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(compose, command):
    from omegaconf import OmegaConf

    config = compose(config_name=command, small=False)
    if command == "train":  # the others take what they miss from a run
        OmegaConf.resolve(config)
    assert config


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_belongs_to_a_command_and_composes(compose, choice):
    assert composes(compose, choice) is not None


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice not in NOT_RUN])
def test_every_choice_for_training_trains_one_batch(compose, tmp_path, choice):
    command, _ = composes(compose, choice)
    if command != "train":
        pytest.skip(f"a choice of {command}, whose tests run it")
    group = choice.partition("=")[0]
    debug = [] if group == "trainer" else ["trainer=debug"]
    config = compose(choice, *debug, *SMALL, *FEW, "trainer.accelerator=cpu")
    main(config)
    assert json.loads((tmp_path / "metrics.json").read_text())["iterations"] == 1
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in saved.values())


def test_ddp_is_two_devices_with_the_strategy_that_two_networks_need(compose):
    trainer = build_trainer(compose("trainer=ddp", "trainer.accelerator=cpu"))
    assert trainer.num_devices == 2 and trainer.world_size == 2
    assert trainer.strategy._ddp_kwargs["find_unused_parameters"]


@pytest.mark.parametrize("sync", [True, False])
def test_ddp_has_batch_norm_over_all_devices_unless_it_is_switched_off(compose, sync, caplog):
    config = compose("trainer=ddp", "trainer.accelerator=cpu", f"trainer.sync_batchnorm={sync}", "model=dcgan")
    gan, trainer = build_gan(config), build_trainer(config)
    with caplog.at_level("INFO", logger="gan_lightning"):
        layer_sync = trainer.strategy._layer_sync
        if layer_sync:
            layer_sync.apply(gan)
    assert isinstance(layer_sync, SyncBatchNorm) if sync else layer_sync is None
    assert any("BatchNorm looks at the batch of all devices together" in line for line in caplog.messages) == sync
    assert all(("forward" in vars(layer)) == sync for layer in batch_norms(gan))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_gpu_where_there_is_none_says_what_to_use(compose):
    with pytest.raises(InstantiationException) as refused:
        build_trainer(compose("trainer=gpu"))
    line = explain(refused.value)
    assert "\n" not in line
    for word in ("trainer.accelerator=gpu", "no GPU", "trainer=cpu"):
        assert word in line


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is none")
def test_gpu_trains_one_batch(compose, tmp_path):
    main(compose("trainer=gpu", *SMALL))
    assert json.loads((tmp_path / "metrics.json").read_text())["iterations"] == 1


@pytest.mark.parametrize("recipe", [None, *options("experiment")])
def test_debug_is_small_whatever_the_recipe_says_and_what_is_typed_counts(compose, recipe):
    chosen = [f"experiment={recipe}"] if recipe else []
    config = compose(*chosen, "trainer=debug", small=False)
    assert config.data.batch_size <= 8 and config.trainer.limit_train_batches <= 4
    assert (config.trainer.max_epochs, config.trainer.max_steps, config.trainer.check_val_every_n_epoch) == (2, -1, 2)
    typed = compose(*chosen, "trainer=debug", "data.batch_size=9", "trainer.max_epochs=3", small=False)
    assert (typed.data.batch_size, typed.trainer.max_epochs) == (9, 3)
    whole = compose(*chosen, small=False)
    assert whole.data.batch_size > 8 and max(whole.trainer.max_epochs, whole.trainer.max_steps) > 2


@pytest.mark.parametrize("choice", [f"model={option}" for option in options("model")])
def test_every_model_takes_color_images_of_another_size(compose, choice):
    gan = build_gan(compose(choice, "data.image_shape=[3,32,32]"))
    images = gan.sample(2)
    assert images.shape == (2, 3, 32, 32)
    assert gan.discriminator.eval()(images).shape == (2,)


@pytest.mark.parametrize("choice", [f"model={option}" for option in options("model")])
def test_every_number_in_a_models_file_is_one_its_networks_take(compose, choice):
    """A key that no constructor knows would be an error; one that is ignored would be a lie."""
    config = compose(choice)
    for name in ("generator", "discriminator"):
        assert instantiate(config.model[name]) is not None
        with pytest.raises(InstantiationException, match="unexpected keyword"):
            instantiate(config.model[name], no_such_argument=1)


def test_overrides_in_the_header_of_dcgan_are_the_papers(compose):
    """Radford et al. 2016, section 4: BatchNorm in both, N(0, 0.02), Adam with 2e-4 and beta1 0.5, nothing else."""
    lines = (conf_dir() / "model/dcgan.yaml").read_text(encoding="utf-8").splitlines()
    config = compose(*(word for line in lines if line.startswith("#   ") for word in shlex.split(line[1:])))
    gan = build_gan(config)
    assert (gan.ema, gan.penalty, gan.constraint) == (None, None, None)
    for optimizer, network in zip(gan.configure_optimizers(), (gan.discriminator, gan.generator), strict=True):
        assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (2e-4, (0.5, 0.999))
        assert batch_norms(network)
        weights = torch.cat([weight.flatten() for weight in network.parameters() if weight.dim() == 4])
        assert weights.std().item() == pytest.approx(0.02, rel=0.02)


def test_defaults_of_constructors_are_those_of_conf(compose):
    """Two sources of one number drift apart: without Hydra a user gets the same GAN."""
    from inspect import signature

    from hydra.utils import get_object
    from omegaconf import DictConfig, ListConfig

    different = []

    def compare(node, key):
        if not isinstance(node, DictConfig):
            return
        target = node.get("_target_", "")
        if str(target).startswith("gan_lightning.") and isinstance(get_object(target), type):
            for name, parameter in signature(get_object(target)).parameters.items():
                if name in node and parameter.default is not parameter.empty:
                    value, default = node[name], parameter.default
                    if isinstance(value, ListConfig):
                        value, default = list(value), list(default)
                    if not isinstance(value, DictConfig) and value != default:
                        different.append(f"{key}.{name}: conf has {value}, {target} has {default}")
        # A data set's numbers are its own, those of a logger Lightning's.
        for name in node.keys() - {"data", "reader", "logger", "evaluation", "control"}:
            compare(node._get_node(name), f"{key}.{name}")

    for model in options("model"):
        compare(compose(f"model={model}", small=False), "")
    assert different == []


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ("loss.label_smoothing=0.7", "loss.label_smoothing=0.7 must lie in"),
        ("penalty.weight=-1", "penalty.weight=-1 must be positive; to train without a penalty: penalty=none"),
        ("+schedule@penalty.schedule=cosine penalty.schedule.final=-1", "penalty.schedule.final=-1 must be 0 or more"),
        ("constraint=weight_clipping constraint.limit=0", "constraint.limit=0 must be positive"),
        ("augment=diffaugment augment.strength=2", "augment.strength=2 must lie in"),
        ("ema.warmup=2", "ema.warmup=2 must lie in"),
        ("latent_dim=0", "model.generator.latent_dim=0 must be 1 or more"),
        ("model.generator.hidden=[0]", "model.generator.hidden=[0]: widths of layers must be 1 or more"),
        ("model.generator.init=he", "model.generator.init=he must be one of default, "),
        ("model.discriminator.conditioning=x", "model.discriminator.conditioning=x must be one of none, "),
        ("model=r3gan model.discriminator.group_width=7", "model.discriminator.group_width=7 must divide"),
        ("data.batch_size=0", "data.batch_size=0 must be a whole number"),
        ("data=stacked_mnist data.num_classes=9", "data.num_classes=9 must be the classes of one image to the power"),
        ("callbacks.pictures.nrow=0", "callbacks.pictures.nrow=0 must be 1 or more"),
    ],
)
def test_a_class_names_its_argument_and_the_line_the_whole_key(compose, overrides, line):
    config = compose(*overrides.split(), small=False)
    with pytest.raises(InstantiationException) as refused:
        instantiate(config[line.split(".")[0]])
    assert explain(refused.value, overrides=overrides.split()).startswith(line)
