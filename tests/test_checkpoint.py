import shutil

import pytest
import torch
from conftest import ROOT
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from test_gan import LATENT_DIM, SHAPE, fit, small_gan
from torch import nn
from torch.testing import assert_close

from gan_lightning.checkpoint import build_network, load_gan
from gan_lightning.ema import EMA
from gan_lightning.gan import CHECKPOINT_VERSION

NETWORKS = {
    "generator": {
        "_target_": "gan_lightning.models.dcgan.Generator",
        "latent_dim": LATENT_DIM,
        "image_shape": list(SHAPE),
        "base_channels": 4,
    },
    "discriminator": {
        "_target_": "gan_lightning.models.mlp.Discriminator",
        "image_shape": list(SHAPE),
        "hidden": [16],
        "dropout": 0.2,
    },
}


def trained(folder, **settings):
    """A run folder with a checkpoint, and its GAN."""
    gan = small_gan(networks=NETWORKS, **settings)
    saver = ModelCheckpoint(folder / "checkpoints", filename="last", every_n_epochs=1, enable_version_counter=False)
    fit(gan, folder, 6, callbacks=[saver], enable_checkpointing=True)
    return gan


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, trained(folder, ema=EMA())


@pytest.fixture
def checkpoint(run):
    """The content of a checkpoint, to be changed and saved again."""
    return torch.load(run[0] / "checkpoints" / "last.ckpt", weights_only=True)


def save(content, path):
    torch.save(content, path)
    return path


# --- What a checkpoint is good for -------------------------------------------------------------------------


def test_checkpoint_is_plain_containers_and_tensors(checkpoint):
    """torch.load(weights_only=True) has read it, which builds nothing else."""
    assert checkpoint["gan_lightning"] == {
        "version": CHECKPOINT_VERSION,
        "latent_dim": LATENT_DIM,
        "networks": NETWORKS,
        "averaged": True,
    }
    assert checkpoint["global_step"] == 6


@pytest.mark.parametrize("ema", [None, EMA()], ids=["plain", "averaged"])
def test_loaded_gan_makes_the_samples_of_the_run(tmp_path, ema):
    gan = trained(tmp_path, ema=ema)
    for path in (tmp_path, tmp_path / "checkpoints" / "last.ckpt"):
        assert torch.equal(load_gan(path).sample(5, seed=3), gan.sample(5, seed=3))


def test_loaded_discriminator_judges_as_the_runs_does(run):
    folder, gan = run
    images = gan.sample(4)
    assert torch.equal(load_gan(folder).discriminator(images), gan.discriminator.eval()(images))


def test_checkpoint_alone_in_another_folder_is_enough(run, tmp_path, monkeypatch):
    """Another process is tests/test_sample.py's."""
    folder, gan = run
    shutil.copy(folder / "checkpoints" / "last.ckpt", tmp_path / "copied.ckpt")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(load_gan("copied.ckpt").sample(3, seed=1), gan.sample(3, seed=1))


def test_loading_leaves_the_random_numbers_of_the_caller(run):
    """Someone who samples in the middle of an experiment of their own."""
    samples = load_gan(run[0]).sample(2)
    torch.manual_seed(1)
    assert torch.equal(load_gan(run[0]).sample(2), samples)


# --- Files that are no good --------------------------------------------------------------------------------


def damaged(content, path):
    raw = bytearray(save(content, path).read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 64] = bytes(64)
    path.write_bytes(raw)


def truncated(content, path):
    raw = save(content, path).read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


FOREIGN = {
    "empty": lambda content, path: path.write_bytes(b""),
    "text": lambda content, path: path.write_text("not a checkpoint"),
    "truncated": truncated,
    "a tensor": lambda content, path: save(torch.zeros(3), path),
    "another project's": lambda content, path: save({"state_dict": {}, "epoch": 3}, path),
    "about is no dict": lambda content, path: save(content | {"gan_lightning": 1}, path),
    "no version": lambda content, path: save(content | {"gan_lightning": {"networks": NETWORKS}}, path),
    "no weights": lambda content, path: save({"gan_lightning": content["gan_lightning"]}, path),
    "no networks": lambda content, path: changed(content, path, networks=None),
    "half of the networks": lambda content, path: changed(content, path, networks={"generator": NETWORKS["generator"]}),
    "newer": lambda content, path: changed(content, path, version=CHECKPOINT_VERSION + 1),
    "other weights": lambda content, path: changed(content, path, networks=other(hidden=[17])),
    "unknown argument": lambda content, path: changed(content, path, networks=other(hiden=[16])),
    "refused argument": lambda content, path: changed(content, path, networks=other(dropout=2.0)),
    "network of a later version": lambda content, path: changed(
        content, path, networks=other(_target_="gan_lightning.models.of_tomorrow.Discriminator")
    ),
}


def changed(content, path, **about):
    return save(content | {"gan_lightning": content["gan_lightning"] | about}, path)


def other(**discriminator):
    return NETWORKS | {"discriminator": NETWORKS["discriminator"] | discriminator}


@pytest.mark.parametrize("kind", FOREIGN)
def test_file_that_cannot_be_used_is_refused_by_its_name(checkpoint, tmp_path, kind):
    path = tmp_path / "bad.ckpt"
    FOREIGN[kind](checkpoint, path)
    with pytest.raises(ValueError, match=f"ckpt={path}"):
        load_gan(path)


def test_damaged_file_is_refused_or_its_weights_are_intact(run, checkpoint, tmp_path):
    """64 bytes in the middle are zeroed: torch's zip container checks its sums."""
    damaged(checkpoint, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=f"ckpt={tmp_path / 'bad.ckpt'}"):
        load_gan(tmp_path / "bad.ckpt")


# --- Files that mean harm ----------------------------------------------------------------------------------


def hostile(folder):
    """Configs that would create `folder`/owned when built, and names that only look like networks of ours."""
    call = {
        "_target_": "pathlib.Path.touch",
        "_args_": [{"_target_": "pathlib.Path", "_args_": [str(folder / "owned")]}],
    }
    save = {"_target_": "gan_lightning.gan.torch.save", "obj": 1, "f": str(folder / "owned")}
    honest = NETWORKS["discriminator"]
    quoted = str(folder / "owned")
    return {
        "os.system": {"_target_": "os.system", "command": f"touch {folder}/owned"},
        "path": call,
        "function through our package": save,
        "function through our models": save | {"_target_": "gan_lightning.models.mlp.math.prod"},
        "class of torch through our models": {
            "_target_": "gan_lightning.models.mlp.nn.Linear", "in_features": 1, "out_features": 1,
        },
        "our function": {"_target_": "gan_lightning.models.init.initialize", "network": None, "scheme": "dcgan"},
        "our class that is no network": {"_target_": "gan_lightning.gan.GAN"},
        "no target": {"image_shape": [1, 8, 8]},
        "nested in a value": honest | {"init": call},
        "nested in a list": honest | {"hidden": [call]},
        "nested in a tuple": honest | {"hidden": (call,)},
        "nested deeper": honest | {"hidden": [{"a": [call]}]},
        "made by an interpolation": honest
        | {"hidden": "${oc.create:{_target_: gan_lightning.gan.torch.save, obj: 1, f: '" + quoted + "'}}"},
        "target from an interpolation": {"_target_": "${oc.decode:'pathlib.Path.cwd'}"},
        "secret from the environment": honest | {"init": "${oc.env:GAN_LIGHTNING_TEST_SECRET}"},
        "partial": call | {"_partial_": True},
    }  # fmt: skip


@pytest.mark.parametrize("kind", hostile(ROOT))
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_hostile_checkpoint_is_refused_and_nothing_is_run(checkpoint, tmp_path, monkeypatch, kind, network):
    monkeypatch.setenv("GAN_LIGHTNING_TEST_SECRET", "hunter2")
    path = changed(checkpoint, tmp_path / "bad.ckpt", networks=NETWORKS | {network: hostile(tmp_path)[kind]})
    with pytest.raises(ValueError, match=f"ckpt={path}") as refusal:
        load_gan(path)
    assert not (tmp_path / "owned").exists()
    assert "hunter2" not in str(refusal.value)


def test_hostile_configs_of_this_test_do_run_where_nobody_looks(tmp_path):
    """Else the test above would pass for the wrong reason."""
    for kind in ("path", "function through our package", "nested in a tuple", "made by an interpolation"):
        config = hostile(tmp_path)[kind]
        try:
            instantiate(config)
        except Exception as error:  # after the harm is done
            assert kind.startswith(("nested", "made", "path")), error
        assert (tmp_path / "owned").exists(), kind
        (tmp_path / "owned").unlink()


def test_pickle_with_code_in_it_is_refused_and_nothing_is_run(tmp_path):
    class Harm:
        def __reduce__(self):
            return (tmp_path / "owned").touch, ()

    torch.save({"gan_lightning": Harm()}, tmp_path / "bad.ckpt")
    with pytest.raises(ValueError, match=f"ckpt={tmp_path / 'bad.ckpt'}"):
        load_gan(tmp_path / "bad.ckpt")
    assert not (tmp_path / "owned").exists()


def test_networks_of_this_package_are_built():
    network = build_network(NETWORKS["generator"])
    assert isinstance(network, nn.Module)
    assert_close(network(torch.zeros(2, LATENT_DIM)).shape, torch.Size([2, *SHAPE]))
