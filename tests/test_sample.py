import numpy as np
import pytest
import torch
from PIL import Image
from test_checkpoint import trained
from test_gan import SHAPE
from torchvision.transforms.functional import pil_to_tensor

from gan_lightning.ema import EMA
from gan_lightning.images import grid
from gan_lightning.sample import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run below outputs/ of an otherwise empty folder, and its GAN."""
    folder = tmp_path_factory.mktemp("project") / "outputs" / "mlp-mnist" / "some-run"
    return folder, trained(folder, ema=EMA())


@pytest.fixture
def sample(compose):
    return lambda *overrides: main(compose(*overrides, config_name="sample"))


def picture(path):
    with Image.open(path) as image:
        return pil_to_tensor(image)


def test_png_is_a_grid_of_the_samples(run, sample, tmp_path):
    folder, gan = run
    sample(f"ckpt={folder}", "n=6", "nrow=3", "seed=4", f"out={tmp_path}/grid.png")
    assert torch.equal(picture(tmp_path / "grid.png"), grid(gan.sample(6, seed=4), nrow=3))


def test_npy_is_float32_images_between_minus_one_and_one(run, sample, tmp_path):
    folder, gan = run
    sample(f"ckpt={folder}/checkpoints/last.ckpt", "n=7", "format=npy", f"out={tmp_path}/new/folder/x.npy")
    array = np.load(tmp_path / "new" / "folder" / "x.npy")
    assert array.shape == (7, *SHAPE) and array.dtype == np.float32
    assert np.abs(array).max() <= 1
    assert np.array_equal(array, gan.sample(7, seed=0).numpy())


def test_same_seed_draws_the_same_images_and_another_one_others(run, sample, tmp_path):
    folder, _ = run
    for name, seed in ("a", 1), ("b", 1), ("c", 2):
        sample(f"ckpt={folder}", "n=4", "format=npy", f"seed={seed}", f"out={tmp_path}/{name}.npy")
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_newest_run_is_the_default_and_gets_the_picture(run, run_cli):
    folder, gan = run
    result = run_cli("n=4", "seed=9", module="gan_lightning.sample", cwd=folder.parents[2])
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith("outputs/mlp-mnist/some-run/samples/seed_9.png")
    assert torch.equal(picture(folder / "samples" / "seed_9.png"), grid(gan.sample(4, seed=9)))
    assert sorted(path.name for path in folder.parents[2].iterdir()) == ["outputs"]  # it leaves nothing else behind


def test_checkpoint_outside_of_a_run_puts_the_picture_beside_it(run, sample, tmp_path):
    """Two folders up is where a run has its samples; here it is somebody's own folder."""
    file = tmp_path / "downloads" / "mine" / "copied.ckpt"
    file.parent.mkdir(parents=True)
    file.write_bytes((run[0] / "checkpoints" / "last.ckpt").read_bytes())
    sample(f"ckpt={file}")
    assert not (tmp_path / "downloads" / "samples").exists()
    assert [path.name for path in file.parent.rglob("*.png")] == ["seed_0.png"]


@pytest.mark.parametrize("name", ["picture", "picture.npy"])
def test_format_decides_what_is_written_not_the_name(run, sample, tmp_path, name):
    sample(f"ckpt={run[0]}", "n=2", f"out={tmp_path}/{name}")
    assert picture(tmp_path / name).shape == (3, SHAPE[1] + 4, 2 * (SHAPE[2] + 2) + 2)


@pytest.mark.parametrize("setting", ["n=0", "n=-3", "n=1.5", "nrow=0", "format=jpg"])
def test_value_out_of_range_is_refused_by_its_key(run, sample, setting):
    with pytest.raises(ValueError, match=f"^{setting} must be "):
        sample(f"ckpt={run[0]}", setting)


def test_mistake_is_one_line_on_the_terminal(run, run_cli):
    result = run_cli("n=0", module="gan_lightning.sample", cwd=run[0].parents[2])
    assert result.returncode != 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: n=0 must be ")
