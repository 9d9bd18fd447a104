import os
import subprocess
import sys
import time

import pytest
import torch
from test_gan import LATENT_DIM, SHAPE, small_gan
from torch.testing import assert_close

from gan_lightning import export
from gan_lightning.conditioning import Conditioning
from gan_lightning.ema import EMA
from gan_lightning.models import mlp, r3gan, resnet
from gan_lightning.models.dcgan import Generator as DCGAN

MLP, RESNET, R3GAN = mlp.Generator, resnet.Generator, r3gan.Generator
ARGUMENTS = {"latent_dim": LATENT_DIM, "image_shape": list(SHAPE)}
SMALL = {
    MLP: {"hidden": [8]},
    DCGAN: {"base_channels": 4},
    RESNET: {"base_channels": 4},
    R3GAN: {"base_channels": 4, "group_width": 4, "num_blocks": 1},
}


def make_run(folder, network=DCGAN, num_classes=0, **told):
    """A run folder with a checkpoint whose weights, averages and statistics all differ; and its GAN."""
    told["num_classes"] = num_classes
    generator = {"_target_": f"{network.__module__}.Generator", **ARGUMENTS, **SMALL[network], **told}
    discriminator = {"image_shape": list(SHAPE), "hidden": [16], **told}
    gan = small_gan(
        generator=network(**ARGUMENTS, **SMALL[network], **told),
        discriminator=mlp.Discriminator(**discriminator),
        conditioning=Conditioning(num_classes),
        networks={
            "generator": generator,
            "discriminator": {"_target_": "gan_lightning.models.mlp.Discriminator", **discriminator},
        },
        ema=EMA(),
    )
    gan.ema.generator(3 * torch.randn(64, LATENT_DIM) + 1, gan.conditioning.in_turn(64))  # BatchNorm's statistics
    with torch.no_grad():
        for weight in gan.generator.parameters():
            weight.add_(1)
    checkpoint = {"state_dict": gan.state_dict()}
    gan.on_save_checkpoint(checkpoint)
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    return folder, gan


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "outputs" / "dcgan-mnist" / "some-run")


@pytest.fixture
def write(compose):
    return lambda *overrides: export.main(compose(*overrides, config_name="export"))


LONGER = [pytest.param(network, marks=pytest.mark.slow) for network in (RESNET, R3GAN)]


def name(network):
    return network.__module__.rpartition(".")[2]


@pytest.mark.parametrize("network", [MLP, DCGAN, *LONGER], ids=name)
def test_onnx_file_makes_the_images_of_the_averaged_generator_for_any_batch(tmp_path, write, network, caplog):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, gan = make_run(tmp_path / "run", network)
    with caplog.at_level("INFO"):
        write(f"ckpt={folder}")
    assert {record.name for record in caplog.records} == {"gan_lightning.export"}
    assert [path.name for path in (folder / "export").iterdir()] == ["generator.onnx"]  # the weights are in it
    assert "largest difference from PyTorch's images, on batches of 1 and 7: " in caplog.messages[-1]
    session = onnxruntime.InferenceSession(folder / "export" / "generator.onnx", providers=["CPUExecutionProvider"])
    (z_input,), (output,) = session.get_inputs(), session.get_outputs()
    assert (z_input.name, z_input.type, z_input.shape[1:]) == ("z", "tensor(float)", [LATENT_DIM])
    assert (output.name, output.type, output.shape[1:]) == ("images", "tensor(float)", list(SHAPE))
    for size in 1, 2, 33:
        z = torch.randn(size, LATENT_DIM)
        (images,) = session.run(None, {"z": z.numpy()})
        assert_close(torch.from_numpy(images), gan.generate(z), rtol=0, atol=1e-5)


@pytest.mark.parametrize("network", SMALL, ids=name)
def test_torch_file_makes_the_images_of_the_averaged_generator_for_any_batch(tmp_path, write, network):
    folder, gan = make_run(tmp_path / "run", network)
    write(f"ckpt={folder}", "format=torch")
    assert [path.name for path in (folder / "export").iterdir()] == ["generator.pt2"]
    generator = torch.export.load(folder / "export" / "generator.pt2").module()
    for size in 1, 2, 33:
        z = torch.randn(size, LATENT_DIM)
        assert_close(generator(z), gan.generate(z), rtol=0, atol=1e-6)


@pytest.mark.parametrize("network", [MLP, DCGAN], ids=["mlp", "dcgan"])
@pytest.mark.parametrize("kind", ["concat", "embedding", "projection"])
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_conditional_generators_file_takes_labels_for_any_batch(tmp_path, write, network, kind, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    folder, gan = make_run(tmp_path / "run", network, conditioning=kind, num_classes=3)
    write(f"ckpt={folder}", f"format={format}")
    generator = export.load(folder / "export" / export.NAMES[format], format)
    for size in 1, 2, 33:
        z, labels = torch.randn(size, LATENT_DIM), torch.arange(size).flip(0) % 3
        assert_close(generator(z, labels), gan.generate(z, labels), rtol=0, atol=1e-5)
    if format == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "export" / "generator.onnx", providers=["CPUExecutionProvider"])
        assert [(given.name, given.type) for given in session.get_inputs()] == [
            ("z", "tensor(float)"), ("labels", "tensor(int64)"),
        ]  # fmt: skip


def test_torch_file_loads_where_this_package_cannot_be_imported(run, write, tmp_path, monkeypatch):
    folder, gan = run
    write(f"ckpt={folder}", "format=torch", f"out={tmp_path}/new/g.pt2")
    for name in [name for name in sys.modules if name.partition(".")[0] == "gan_lightning"]:
        monkeypatch.setitem(sys.modules, name, None)
    generator = torch.export.load(tmp_path / "new" / "g.pt2").module()
    assert_close(generator(torch.ones(3, LATENT_DIM)), gan.generate(torch.ones(3, LATENT_DIM)))


@pytest.mark.parametrize("terminal", [True, False])
def test_terminal_shows_that_it_is_at_work(run, write, tmp_path, monkeypatch, screen, terminal):
    shown, said = screen(terminal), []
    monkeypatch.setattr(export, "write", lambda generator, z, path, format: path.touch())
    monkeypatch.setattr(
        export, "load", lambda path, format: time.sleep(0.3) or said.append(shown.getvalue()) or run[1].generate
    )
    write(f"ckpt={run[0]}", "format=torch", f"out={tmp_path}/g.pt2")
    assert ("writing g.pt2" in said[0]) == terminal and bool(shown.getvalue()) == terminal


def test_file_that_makes_other_images_is_refused_and_removed(run, write, tmp_path, monkeypatch):
    def write_wrongly(generator, z, path, format):
        path.touch()

    monkeypatch.setattr(export, "write", write_wrongly)
    monkeypatch.setattr(export, "load", lambda path, format: lambda z: run[1].generate(z) + 2e-4)
    (tmp_path / "x").write_text("before")
    with pytest.raises(ValueError, match=r"^format=torch: .* differ from PyTorch's by 2\.0e-04, over 1e-04"):
        write(f"ckpt={run[0]}", "format=torch", f"out={tmp_path}/x")
    assert (tmp_path / "x").read_text() == "before" and not list(tmp_path.glob("x.*"))
    monkeypatch.setattr(export, "load", lambda path, format: lambda z: run[1].generate(z) * torch.nan)
    with pytest.raises(ValueError, match="differ from PyTorch's by nan"):
        write(f"ckpt={run[0]}", "format=torch", f"out={tmp_path}/x")


def test_missing_package_is_named_with_the_command_that_installs_it(run, write, monkeypatch):
    for name in "onnx", "onnxruntime", "onnxscript":
        monkeypatch.setitem(sys.modules, name, sys)  # there
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # not there
    with pytest.raises(ValueError, match=r"^format=onnx needs onnxruntime: pip install 'gan-lightning\[export\]'; or "):
        write(f"ckpt={run[0]}")


def test_unknown_format_and_folder_as_file_are_refused_by_their_keys(run, write, tmp_path):
    with pytest.raises(ValueError, match=r"^format=tflite must be onnx or torch$"):
        write(f"ckpt={run[0]}", "format=tflite")
    with pytest.raises(ValueError, match=r"^out=.* is a folder; name a file, such as out=.*/generator\.pt2$"):
        write(f"ckpt={run[0]}", "format=torch", f"out={tmp_path}")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        ValueError, match=r"^out=.*/pipe is a device or a pipe, which a file would replace; name a file$"
    ):
        write(f"ckpt={run[0]}", "format=torch", f"out={tmp_path}/pipe")


@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.ckpt", "x.safetensors"])
def test_a_name_of_a_format_that_is_not_written_is_refused(run, write, tmp_path, name):
    for format, own in ("torch", "pt2"), ("onnx", "onnx"):
        with pytest.raises(ValueError, match=rf"^out=.*: format={format} does not write .* name it .*/x\.{own} "):
            write(f"ckpt={run[0]}", f"format={format}", f"out={tmp_path}/{name}")
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_newest_run_is_the_default_and_its_file_needs_nothing_of_ours(run, run_cli, format):
    folder, project = run[0], run[0].parents[2]
    result = run_cli(f"format={format}", module="gan_lightning.export", cwd=project)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "outputs/dcgan-mnist/some-run/export/generator." in lines[0]
    assert len(lines) == 2 and "largest difference" in lines[1] and not result.stderr
    use = {
        "onnx": "import onnxruntime; onnxruntime.InferenceSession(path).run(None, {'z': np.ones((3, 4), np.float32)})",
        "torch": "import torch; torch.export.load(path).module()(torch.ones(3, 4))",
    }
    code = f"import sys; sys.modules['gan_lightning'] = None; import numpy as np; path = sys.argv[1]; {use[format]}"
    file = next((folder / "export").iterdir())
    subprocess.run([sys.executable, "-c", code, str(file)], cwd=folder, check=True)


def test_mistake_is_one_line_on_the_terminal(run, run_cli):
    result = run_cli("format=tflite", module="gan_lightning.export", cwd=run[0].parents[2])
    assert result.returncode != 0
    assert result.stderr.splitlines() == ["error: format=tflite must be onnx or torch"]
