import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from conftest import ROOT
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from test_gan import LATENT_DIM, SHAPE, fit, same, small_gan, weights
from torch import nn
from torch.testing import assert_close

from gan_lightning.conditioning import Conditioning
from gan_lightning.ema import EMA
from gan_lightning.gan import CHECKPOINT_VERSION, GAN
from gan_lightning.noise import draw_latents
from gan_lightning.runs.checkpoint import MAX_DEPTH, MAX_NUMBER, MAX_VALUES, build_network, load_gan
from gan_lightning.runs.place import epochs_done, iterations_done
from gan_lightning.train import main

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


def refusal(path):
    """What load_gan says of a file: one line that can be printed, and begins with the file's name."""
    with pytest.raises(ValueError) as refused:
        load_gan(path)
    message = str(refused.value)
    assert message.startswith(f"ckpt={path}") and message.isprintable() and len(message) < 500 + len(str(path))
    return message


# --- What a checkpoint is good for -------------------------------------------------------------------------


def test_checkpoint_is_plain_containers_and_tensors(checkpoint):
    """torch.load(weights_only=True) has read it, which builds nothing else."""
    assert checkpoint["gan_lightning"] == {
        "version": CHECKPOINT_VERSION,
        "latent_dim": LATENT_DIM,
        "num_classes": 0,
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
    folder, gan = run
    shutil.copy(folder / "checkpoints" / "last.ckpt", tmp_path / "copied.ckpt")
    monkeypatch.chdir(tmp_path)
    assert torch.equal(load_gan("copied.ckpt").sample(3, seed=1), gan.sample(3, seed=1))


def test_another_process_in_an_empty_folder_makes_the_same_images(run, tmp_path):
    folder, gan = run
    shutil.copy(folder / "checkpoints" / "last.ckpt", tmp_path / "x.ckpt")
    line = "import gan_lightning, numpy; numpy.save('x.npy', gan_lightning.load_gan('x.ckpt').sample(16))"
    subprocess.run([sys.executable, "-c", line], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.ckpt", "x.npy"]
    assert_close(torch.from_numpy(np.load(tmp_path / "x.npy")), gan.sample(16), rtol=0, atol=1e-6)


def test_loading_leaves_the_random_numbers_of_the_caller(run):
    """Someone who samples in the middle of an experiment of their own."""
    before = torch.get_rng_state()
    load_gan(run[0]).sample(2)
    assert torch.equal(torch.get_rng_state(), before)


def test_averaged_generator_samples_and_the_trained_weights_are_there_too(run):
    folder, gan = run
    loaded = load_gan(folder)
    (z,) = draw_latents(3, LATENT_DIM, seed=2)
    with torch.no_grad():
        trained_images, averaged_images = loaded.generator(z), loaded.ema.generator(z)
    assert torch.equal(loaded.sample(3, seed=2), averaged_images)
    assert not torch.equal(trained_images, averaged_images)
    assert same(weights(gan), weights(loaded))


def test_loaded_gan_can_be_trained_on_and_its_weights_are_its_own(run):
    """Each in memory of its own, also where a file says that two are one; the average is not trained."""
    folder, gan = run
    loaded = load_gan(folder)
    wanted = {name: weight.requires_grad for name, weight in gan.named_parameters()}
    assert {name: weight.requires_grad for name, weight in loaded.named_parameters()} == wanted
    assert len({tensor.data_ptr() for tensor in loaded.state_dict().values()}) == len(loaded.state_dict())
    with torch.no_grad():
        loaded.generator.layers[1].weight.zero_()
    assert torch.equal(loaded.sample(2), gan.sample(2))


def content(generator, discriminator, latent_dim=LATENT_DIM, seed=0):
    """A checkpoint of new networks, without what only a resumed run reads."""
    torch.manual_seed(seed)
    networks = {"generator": generator, "discriminator": discriminator}
    gan = GAN(**{name: build_network(config) for name, config in networks.items()}, ema=EMA())
    about = {"version": CHECKPOINT_VERSION, "latent_dim": latent_dim, "networks": networks, "averaged": True}
    return {"gan_lightning": about | {"num_classes": 0}, "state_dict": gan.state_dict()}


MLP = {
    "_target_": "gan_lightning.models.mlp.Generator",
    "latent_dim": LATENT_DIM,
    "image_shape": list(SHAPE),
    "hidden": [16],
}


@pytest.mark.parametrize("generator", [MLP, NETWORKS["generator"]], ids=["mlp", "dcgan"])
def test_one_z_gives_one_image_alone_or_in_a_batch(tmp_path, generator):
    gan = load_gan(save(content(generator, NETWORKS["discriminator"]), tmp_path / "x.ckpt"))
    z = torch.randn(16, LATENT_DIM, generator=torch.Generator().manual_seed(0))
    assert_close(gan.generate(z[3:4]), gan.generate(z)[3:4], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 0), (torch.bfloat16, 0.05)])
def test_weights_of_another_precision_are_loaded_as_float32(run, checkpoint, tmp_path, dtype, tolerance):
    """Of a run with trainer.precision=64-true or bf16-true."""
    weights = checkpoint["state_dict"]
    halved = {name: weight.to(dtype) if weight.is_floating_point() else weight for name, weight in weights.items()}
    gan = load_gan(save(checkpoint | {"state_dict": halved}, tmp_path / "x.ckpt"))
    assert {weight.dtype for weight in gan.parameters()} == {torch.float32}
    samples = gan.sample(3)
    assert samples.dtype == torch.float32 and samples.abs().max() <= 1
    assert_close(samples, run[1].sample(3), rtol=0, atol=tolerance)


# --- A stored file of this format --------------------------------------------------------------------------

# Made on 2026-11-27 with the data of tests/idx_files.py in 8x8, written with `write(folder, size=8)`, by
#   python -m gan_lightning <its overrides> data.image_shape=[1,8,8] latent_dim=4 model.generator.hidden=[8]
#     model.discriminator.hidden=[8] trainer=debug metrics=none hydra.run.dir=run
# It stays as it is once a version is released: a new format adds a file of its own.
VERSION_1 = ROOT / "tests" / "data" / "checkpoint_v1.ckpt"


def test_checkpoint_of_version_1_still_samples_its_images():
    samples = load_gan(VERSION_1).sample(2, seed=5)
    assert samples.shape == (2, 1, 8, 8)
    expected = torch.tensor([[-0.667847, -0.483755, 0.432071, -0.075628], [-0.573985, -0.269249, 0.555194, -0.107339]])
    assert_close(samples[:, 0, 3, :4], expected, rtol=0, atol=1e-5)


def test_checkpoint_of_version_1_holds_what_a_resumed_run_reads():
    checkpoint = torch.load(VERSION_1, weights_only=True)
    assert checkpoint["gan_lightning"]["version"] == 1
    assert (iterations_done(checkpoint), epochs_done(checkpoint)) == (8, 2)
    assert [len(state["state"]) for state in checkpoint["optimizer_states"]] == [4, 4]  # D's and G's weights and biases
    assert checkpoint["callbacks"].keys() == {"Checkpoints", "Scalars", "Alarms"}


# --- Files that are no good --------------------------------------------------------------------------------


def nested(depth):
    value = [1]
    for _ in range(depth):
        value = [value]
    return value


def endless():
    value = []
    value.append(value)
    return value


def laughs():
    """Ten lists of ten times the one before: 10^9 numbers in 200 bytes."""
    value = [1] * 10
    for _ in range(8):
        value = [value] * 10
    return value


def damaged(content, path):
    raw = bytearray(save(content, path).read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 256] = bytes(256)  # more than the empty space between two tensors
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
    FOREIGN[kind](checkpoint, tmp_path / "bad.ckpt")
    refusal(tmp_path / "bad.ckpt")


@pytest.mark.parametrize("content", ["checkpoint", "tensor", "zeros"])
def test_another_format_is_called_so_and_a_whole_checkpoint_beside_it_is_offered(checkpoint, tmp_path, content):
    bad, good = tmp_path / "bad.ckpt", save(checkpoint, tmp_path / "good.ckpt")
    if content == "zeros":
        bad.write_bytes(bytes(1000))
    else:
        thing = checkpoint if content == "checkpoint" else torch.zeros(3)
        torch.save(thing, bad, _use_new_zipfile_serialization=False)
    message = refusal(bad)
    assert "is not a checkpoint of this project: torch.save's old format, or another kind of file" in message
    assert "damaged" not in message and message.endswith(f"; this one is whole: {good}")


def test_damaged_file_is_refused_or_its_weights_are_intact(run, checkpoint, tmp_path):
    """256 bytes in the middle are zeroed: torch's zip container checks its sums."""
    damaged(checkpoint, tmp_path / "bad.ckpt")
    refusal(tmp_path / "bad.ckpt")


def test_of_a_damaged_file_the_newest_whole_one_beside_it_is_offered(checkpoint, tmp_path):
    files = {name: tmp_path / f"{name}.ckpt" for name in ("last", "old", "best", "broken", "foreign", "hostile")}
    truncated(checkpoint, files["last"])
    assert refusal(files["last"]).endswith("(BadZipFile)")
    save(checkpoint, files["old"])
    save(checkpoint, files["best"])
    damaged(checkpoint, files["broken"])
    save({"epoch": 1}, files["foreign"])
    save({"gan_lightning": torch.zeros(3).to_sparse()}, files["hostile"])
    for age, file in enumerate(files.values()):
        os.utime(file, (10**9 + age, 10**9 + age))
    message = refusal(files["last"])
    assert "is damaged" in message and message.endswith(f"; this one is whole: {files['best']}")


# Weights and networks that do not belong together: (what is changed, what is said)

G, D = NETWORKS["generator"], NETWORKS["discriminator"]


def weight(name, change):
    return lambda content: content["state_dict"].update({name: change(content["state_dict"][name])})


def about(**settings):
    return lambda content: content["gan_lightning"].update(settings)


def networks(**settings):
    """Other arguments for the generator."""
    return about(networks=NETWORKS | {"generator": G | settings})


UNFIT = {
    "weight is missing": (lambda content: content["state_dict"].pop("generator.layers.1.weight"),
                          r"lacks generator\.layers\.1\.weight"),
    "average is missing": (lambda content: content["state_dict"].pop("ema.generator.layers.2.running_var"),
                           r"lacks ema\.generator\.layers\.2\.running_var"),
    "weight too many": (weight("generator.layers.1.weight", lambda _: torch.zeros(4, 8, 2, 3)),
                        r"generator\.layers\.1\.weight is \(4, 8, 2, 3\) in it and \(4, 8, 2, 2\)"),
    "network of more layers": (lambda content: content["state_dict"].update(more=torch.zeros(1)), "it has more, which"),
    "average not announced": (about(averaged=False), r"it has ema\.generator.*, which"),
    "weight is no tensor": (weight("generator.layers.1.weight", lambda _: [0.0]),
                            r"lacks generator\.layers\.1\.weight"),
    "whole numbers as weights": (weight("discriminator.layers.1.bias", torch.Tensor.long),
                                 r"discriminator\.layers\.1\.bias is torch\.int64 in it and torch\.float32"),
    "truths as weights": (weight("discriminator.layers.1.bias", torch.Tensor.bool), r"\.bias is torch\.bool in it"),
    "count that is no whole number": (weight("generator.layers.2.num_batches_tracked", torch.Tensor.float),
                                      r"num_batches_tracked is torch\.float32 in it and torch\.int64"),
    "state_dict is a list": (lambda content: content.update(state_dict=[]), "no state_dict"),
    # 32 TB of weights: refused as it is compared, not as the memory is asked for.
    "more channels than memory": (networks(base_channels=MAX_NUMBER),
                                  r"is \(4, 8, 2, 2\) in it and \(4, 2000000, 2, 2\)"),
    "other latent_dim": (about(latent_dim=LATENT_DIM + 1), "does not take latents of latent_dim=5"),
    "latent_dim is no number": (about(latent_dim="4"), "latent_dim=4 must be a whole number"),
    "latent_dim is missing": (about(latent_dim=None), "latent_dim=None must be a whole number"),
    "latent_dim of 0": (about(latent_dim=0), "latent_dim=0 must be a whole number"),
    "latent_dim beyond all bounds": (about(latent_dim=10**30), f"latent_dim=10+ must be .* to {MAX_NUMBER}"),
    "thousands of layers": (networks(hidden=[1] * 100_000), f"more than {MAX_VALUES} settings"),
    "thousands of arguments": (networks(**{f"a{i}": 1 for i in range(10_000)}), f"more than {MAX_VALUES} settings"),
    "number beyond all bounds": (networks(base_channels=10**600), f"number 10+…, above {MAX_NUMBER}"),
    "negative number beyond all bounds": (networks(base_channels=-(10**30)), f"number -10+, above {MAX_NUMBER}"),
    "endless text": (networks(init="x" * 10**6), "text of more than 200 characters"),
    "setting is a tensor": (networks(base_channels=torch.tensor(4)), "with a Tensor as a setting"),
    "setting is a set": (networks(image_shape={1, 8}), "with a set as a setting"),
    "setting by a number": (networks(**{"hidden": {1: 2}}), "unexpected keyword argument"),
    "lists in lists": (networks(image_shape=nested(MAX_DEPTH)), f"more than {MAX_DEPTH} deep"),
    "list in itself": (networks(image_shape=endless()), f"more than {MAX_DEPTH} deep"),
    "few lists that unfold to many": (networks(image_shape=laughs()), f"more than {MAX_VALUES} settings"),
    "terminal's control characters": (networks(_target_="\x1b[2J\r\nowned"), r"asks for \?\[2J owned, which is not"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNFIT)
def test_weights_that_do_not_fit_their_networks_are_refused_by_name(checkpoint, tmp_path, kind):
    change, message = UNFIT[kind]
    change(checkpoint)
    assert re.search(message, refusal(save(checkpoint, tmp_path / "bad.ckpt")))


def of_classes(kind="projection", num_classes=3):
    """A checkpoint of a conditional GAN."""
    told = {"conditioning": kind, "num_classes": num_classes}
    networks = {name: config | told for name, config in {"generator": MLP, "discriminator": D}.items()}
    torch.manual_seed(0)
    built = {name: build_network(config) for name, config in networks.items()}
    gan = GAN(**built, conditioning=Conditioning(num_classes), latent_dim=LATENT_DIM, networks=networks, ema=EMA())
    content = {"state_dict": gan.state_dict()}
    gan.on_save_checkpoint(content)
    return content, gan


@pytest.mark.parametrize("kind", ["concat", "embedding", "projection", "auxiliary"])
def test_loaded_conditional_gan_samples_the_classes_asked_for(tmp_path, kind):
    content, gan = of_classes(kind)
    loaded, labels = load_gan(save(content, tmp_path / "x.ckpt")), torch.tensor([2, 2, 0, 1])
    assert torch.equal(loaded.sample(4, labels=labels), gan.sample(4, labels=labels))
    assert torch.equal(loaded.sample(4), gan.sample(4)) and loaded.conditioning.num_classes == 3
    with pytest.raises(ValueError, match="labels must be"):
        loaded.sample(4, labels=labels + 1)


@pytest.mark.parametrize("num_classes", [0, 4, 1, -3, True, 3.0, "3", None, MAX_NUMBER + 1, 10**30])
def test_number_of_classes_that_is_none_or_not_the_networks_is_refused(tmp_path, num_classes):
    content, _ = of_classes()
    assert "num_classes=" in refusal(changed(content, tmp_path / "bad.ckpt", num_classes=num_classes))


MISMATCHED = {
    "no image": (MLP | {"image_shape": [64]}, D, r"turns two latents into \(2, 64\), not"),
    "one image of two": (MLP | {"image_shape": [-1, 16, 8]}, D, "cannot be used"),
    "discriminator of other images": (MLP, D | {"image_shape": [1, 8, 9]}, r"does not take images of \(1, 8, 8\)"),
    "discriminator of smaller images": (
        MLP | {"image_shape": [1, 16, 16]},
        {"_target_": "gan_lightning.models.dcgan.Discriminator", "image_shape": [1, 8, 8], "base_channels": 2},
        r"turns two images into \(18,\), not",
    ),
    "generator in the discriminator's place": (MLP, MLP, "does not take images"),
}


@pytest.mark.parametrize("kind", MISMATCHED)
def test_networks_that_do_not_fit_each_other_are_refused(tmp_path, kind):
    generator, discriminator, message = MISMATCHED[kind]
    try:
        bad = content(generator, discriminator)
    except Exception:  # cannot be built at all
        bad = content(MLP, D)
        bad["gan_lightning"]["networks"] = {"generator": generator, "discriminator": discriminator}
    assert re.search(message, refusal(save(bad, tmp_path / "bad.ckpt")))


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
    assert "hunter2" not in refusal(path)
    assert not (tmp_path / "owned").exists()


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

    refusal(save({"gan_lightning": Harm()}, tmp_path / "bad.ckpt"))
    assert not (tmp_path / "owned").exists()


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


NOT_PLAIN = {  # all of it is plain enough for torch.load(weights_only=True)
    "a terabyte of zeros": Call(bytearray, 10**12),
    "a tensor of nothing": Call(torch.Tensor, 10**12),
    "memory of nothing": Call(torch.UntypedStorage, 10**12),
    "sparse": torch.zeros(3).to_sparse(),
    "meta": torch.zeros(3, device="meta"),
    "bytes of bytes": b"bytes",  # base64 of base64 of base64 ... grows without end
}


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_pickle_that_takes_memory_or_other_tensors_is_refused_before_it_is_read(checkpoint, tmp_path, kind):
    """Anywhere in the file, as in the state of some callback."""
    path = save(checkpoint | {"callbacks": {"other": NOT_PLAIN[kind]}}, tmp_path / "bad.ckpt")
    assert re.search(r"asks for [\w.]+, which is no plain data; refused$", refusal(path))


@pytest.mark.parametrize("place", ["state_dict", "callbacks"])
def test_tensor_that_unfolds_to_more_than_the_file_holds_is_refused(checkpoint, tmp_path, place):
    checkpoint[place]["generator.layers.1.weight"] = torch.zeros(1).expand(10**6, 10**6)
    path = save(checkpoint, tmp_path / "bad.ckpt")
    assert path.stat().st_size < 10**5
    assert re.search(r": generator\.layers\.1\.weight .* unfolds 4 bytes to 4000000000000; refused", refusal(path))


def rewrite(path, change=lambda raw: raw, compression=zipfile.ZIP_STORED):
    """Write a checkpoint's archive anew, its pickle changed."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, raw in files.items():
            archive.writestr(name, change(raw) if name.endswith("data.pkl") else raw)
    return path


def test_packed_file_that_unpacks_to_more_than_its_size_is_refused(checkpoint, tmp_path):
    path = rewrite(save(checkpoint | {"zeros": torch.zeros(10**6)}, tmp_path / "bad.ckpt"), compression=8)
    assert re.search(r"of \d+ bytes would unpack to 4\d{6}; refused$", refusal(path))
    checkpoint["zeros"] = torch.zeros(3)
    load_gan(rewrite(save(checkpoint, tmp_path / "good.ckpt")))  # not for being rewritten


@pytest.mark.parametrize("place", [0, 1], ids=["its memory", "its shape"])
def test_tensor_that_claims_more_than_is_there_is_refused(checkpoint, tmp_path, place):
    def claim(raw):
        parts = raw.split(struct.pack("<i", 77_777))
        assert len(parts) == 3
        sizes = [77_777, 77_777]
        sizes[place] = 2**31 - 1
        return parts[0] + struct.pack("<i", sizes[0]) + parts[1] + struct.pack("<i", sizes[1]) + parts[2]

    path = rewrite(save(checkpoint | {"zeros": torch.zeros(77_777)}, tmp_path / "bad.ckpt"), claim)
    assert "is damaged" in refusal(path)


# What Lightning's ModelCheckpoint keeps, and acts on: it deletes the files that it takes for its own.
def paths_elsewhere(folder):
    victim = str(folder / "victim.ckpt")
    return {
        "ModelCheckpoint{'monitor': None, 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, "
        "'train_time_interval': None}": {
            "monitor": None,
            "dirpath": str(folder),
            "best_model_path": victim,
            "last_model_path": victim,
            "kth_best_model_path": victim,
            "best_k_models": {victim: torch.tensor(9.0)},
            "best_model_score": torch.tensor(9.0),
            "current_score": torch.tensor(9.0),
            "kth_value": torch.tensor(9.0),
        },
    }


@pytest.fixture
def elsewhere(tmp_path):
    """A folder that no command of ours has been told of, with somebody's file."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "victim.ckpt").write_text("dear to somebody")
    yield folder
    assert [file.name for file in folder.iterdir()] == ["victim.ckpt"]
    assert (folder / "victim.ckpt").read_text() == "dear to somebody"


def test_loading_writes_nothing_whatever_paths_a_checkpoint_names(run, checkpoint, tmp_path, elsewhere, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint["callbacks"] |= paths_elsewhere(elsewhere)
    checkpoint["gan_lightning"] |= {"dirpath": str(elsewhere), "out": str(elsewhere / "out")}
    path = save(checkpoint | {"default_root_dir": str(elsewhere)}, tmp_path / "x.ckpt")
    assert torch.equal(load_gan(path).sample(2), run[1].sample(2))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["elsewhere", "x.ckpt"]


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.:UserWarning")  # "add its ModelCheckpoint"
def test_resuming_writes_nothing_outside_of_the_run_whatever_paths_its_checkpoint_names(compose, tmp_path, elsewhere):
    folder = tmp_path / "run"
    settings = ("trainer.log_every_n_steps=1", "data.batch_size=64")
    config = compose("trainer.max_steps=3", *settings, folder=folder)
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(config, folder / ".hydra" / "config.yaml")  # as Hydra does
    main(config)
    file = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["callbacks"]["Checkpoints"] |= {
        "latest": str(elsewhere / "victim.ckpt"),
        "dirpath": str(elsewhere),
    }
    checkpoint["callbacks"] |= paths_elsewhere(elsewhere)
    save(checkpoint | {"default_root_dir": str(elsewhere)}, file)
    config = compose("trainer.max_steps=6", *settings, folder=folder)
    config.resume = str(file)
    main(config)
    after = torch.load(file, weights_only=True)
    assert after["global_step"] == 6 and after["callbacks"].keys() == {"Checkpoints", "Scalars", "Alarms"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "run"]


def test_networks_of_this_package_are_built():
    network = build_network(NETWORKS["generator"])
    assert isinstance(network, nn.Module)
    assert_close(network(torch.zeros(2, LATENT_DIM)).shape, torch.Size([2, *SHAPE]))
