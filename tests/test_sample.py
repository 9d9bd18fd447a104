import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image, ImageSequence
from test_checkpoint import VERSION_1, trained
from test_gan import LATENT_DIM, SHAPE
from torch.testing import assert_close
from torchvision.transforms.functional import pil_to_tensor

from gan_lightning.conditioning import Conditioning
from gan_lightning.ema import EMA
from gan_lightning.gan import GAN
from gan_lightning.images import enlarge, grid, to_uint8
from gan_lightning.noise import CHUNK_SIZE, draw_latents, slerp, walk
from gan_lightning.runs.checkpoint import build_network
from gan_lightning.sample import FORMATS, STEPS, main


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


@pytest.mark.parametrize("name", ["picture.npy", "walk.gif"])
def test_a_name_of_another_format_is_refused(run, sample, tmp_path, name):
    with pytest.raises(ValueError, match=f"has the suffix of another format than format=png; add format={name[-3:]}"):
        sample(f"ckpt={run[0]}", "n=2", f"out={tmp_path}/{name}")


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.webp", "x.npz", "x.png.tmp", "é.tiff", "a b.pdf"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_name_of_a_format_that_is_not_written_is_refused(run, sample, tmp_path, name, format):
    (tmp_path / "out").mkdir()
    with pytest.raises(
        ValueError, match=rf"^out=.*{name[-4:]}: format={format} does not write .* name it .*\.{format} "
    ):
        sample(f"ckpt={run[0]}", "n=2", f"format={format}", f"out='{tmp_path}/out/{name}'")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", ["pipe", "link", "file/x.png"])
@pytest.mark.parametrize("format", FORMATS)
def test_what_is_no_place_for_a_file_is_refused_before_anything_is_drawn(
    run, sample, tmp_path, monkeypatch, name, format
):
    monkeypatch.setattr("gan_lightning.runs.checkpoint.load_gan", lambda file: pytest.fail("work for nothing"))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    out = f"{tmp_path}/{name}".replace(".png", f".{format}")
    with pytest.raises(
        ValueError, match=rf"^out={out}.* (is a device or a pipe, .*name a file|is not a folder; .*out=…)$"
    ):
        sample(f"ckpt={run[0]}", "n=2", f"format={format}", f"out={out}")
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "pipe").is_fifo()


def test_pictures_of_one_run_have_names_of_their_own(run, sample):
    for settings in ([], ["interpolate=true"], ["truncation=0.7"]):
        sample(f"ckpt={run[0]}", "n=3", "seed=77", *settings)
    names = {path.name for path in (run[0] / "samples").glob("seed_77*")}
    assert names == {"seed_77.png", "seed_77_walk.png", "seed_77_truncation_0.7.png"}


@pytest.mark.parametrize("name", ["picture", "truncation_0.7", "picture.PNG", "jpg"])
def test_format_is_written_under_any_name_that_claims_no_other(run, sample, tmp_path, name):
    sample(f"ckpt={run[0]}", "n=2", f"out={tmp_path}/{name}")
    assert picture(tmp_path / name).shape == (3, SHAPE[1] + 4, 2 * (SHAPE[2] + 2) + 2)


@pytest.mark.parametrize(
    "setting",
    [
        *("n=0", "n=-3", "n=1.5", "n=True", "nrow=0", "seed=0.5", "seed=-1", "format=jpg", "interpolate=often"),
        *("class=-1", "class=three", "class=1.5", "class=True"),
        *("truncation=0", "truncation=-0.7", "truncation=nan", "truncation=low"),
    ],
)
def test_value_out_of_range_is_refused_by_its_key(run, sample, setting):
    with pytest.raises(ValueError, match=f"^{setting} must be "):
        sample(f"ckpt={run[0]}", setting)


@pytest.mark.parametrize(
    "settings, line",
    [
        (["n=10001"], "n=10001 makes 10,001 images, and format=png holds up to 10,000; draw fewer, or use format=npy"),
        (["n=501", "format=gif"], "n=501 makes 10,020 images, and format=gif holds up to 10,000"),
        (["n=101", "nrow=100", "interpolate=true"], "n=101 makes 10,100 images"),
        (["n=1", "interpolate=true"], "n=1 must be 2 or more for a walk"),
        (["interpolate=false", "format=gif"], "interpolate=false must be true for format=gif"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(run, sample, settings, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        sample(f"ckpt={run[0]}", *settings)


def test_folder_in_place_of_a_file_is_refused_before_anything_is_drawn(run, sample, tmp_path):
    with pytest.raises(ValueError, match=r"^out=.* is a folder; name a file, such as out=.*/images\.png$"):
        sample(f"ckpt={run[0]}", f"out={tmp_path}")


# --- Classes -----------------------------------------------------------------------------------------------


def conditional_run(folder, num_classes):
    """A run of a conditional GAN, and the GAN."""
    told = {"conditioning": "concat", "num_classes": num_classes}
    networks = {
        "generator": {"_target_": "gan_lightning.models.mlp.Generator", "latent_dim": LATENT_DIM},
        "discriminator": {"_target_": "gan_lightning.models.mlp.Discriminator"},
    }
    networks = {
        name: {**config, "image_shape": list(SHAPE), "hidden": [16], **told} for name, config in networks.items()
    }
    torch.manual_seed(0)
    built = {name: build_network(config) for name, config in networks.items()}
    gan = GAN(**built, conditioning=Conditioning(num_classes), latent_dim=LATENT_DIM, networks=networks)
    checkpoint = {"state_dict": gan.state_dict()}
    gan.on_save_checkpoint(checkpoint)
    (folder / "checkpoints").mkdir()
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    return folder, gan


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory):
    return conditional_run(tmp_path_factory.mktemp("conditional"), 3)


def test_without_a_class_very_many_are_drawn_in_turn(tmp_path, sample):
    """Not in rows, of which a thousand would be no picture."""
    folder, gan = conditional_run(tmp_path, 1000)
    sample(f"ckpt={folder}", "n=12", "nrow=4", f"out={tmp_path}/x.png")
    assert torch.equal(picture(tmp_path / "x.png"), grid(gan.sample(12), nrow=4))


def test_class_is_that_of_all_images(of_classes, sample, tmp_path):
    folder, gan = of_classes
    sample(f"ckpt={folder}", "class=2", "n=6", "nrow=3", f"out={tmp_path}/x.png")
    sample(f"ckpt={folder}", "class=0", "n=6", "format=npy", f"out={tmp_path}/x.npy")
    twos, zeros = (gan.sample(6, labels=torch.full((6,), number)) for number in (2, 0))
    assert torch.equal(picture(tmp_path / "x.png"), grid(twos, nrow=3))
    assert np.array_equal(np.load(tmp_path / "x.npy"), zeros.numpy()) and not torch.equal(twos, zeros)


def test_without_a_class_the_grid_has_a_row_for_each_and_in_each_column_one_z(of_classes, sample, tmp_path, caplog):
    folder, gan = of_classes
    with caplog.at_level("INFO"):
        sample(f"ckpt={folder}", "n=10", f"out={tmp_path}/x.png")  # the last column is filled, and that is said
        sample(f"ckpt={folder}", "n=12", f"out={tmp_path}/y.png")
    filled = [line for line in caplog.messages if "filled up" in line]
    assert filled == ["n=10 is filled up to 4 of each of the 3 classes"]
    rows = [gan.sample(4, labels=torch.full((4,), number)) for number in range(3)]
    assert torch.equal(picture(tmp_path / "x.png"), grid(torch.cat(rows), nrow=4))


def test_without_a_class_an_array_has_all_in_turn_over_its_blocks(of_classes, sample, tmp_path):
    folder, gan = of_classes
    sample(f"ckpt={folder}", f"n={CHUNK_SIZE + 5}", "format=npy", f"out={tmp_path}/x.npy")  # no multiple of 3
    assert_close(torch.from_numpy(np.load(tmp_path / "x.npy")), gan.sample(CHUNK_SIZE + 5))


@pytest.mark.parametrize(("setting", "number"), [([], None), (["class=1"], 1)])
def test_walk_keeps_its_class_from_point_to_point(of_classes, sample, tmp_path, setting, number):
    folder, gan = of_classes
    sample(f"ckpt={folder}", "n=4", "nrow=5", "interpolate=true", *setting, f"out={tmp_path}/x.png")
    classes = torch.tensor([0, 1, 2, 0] if number is None else [number] * 4).repeat_interleave(5)
    expected = gan.generate(way(gan, 4, 5).flatten(0, 1), classes)
    assert torch.equal(picture(tmp_path / "x.png"), grid(expected, nrow=5))


def test_pictures_of_a_class_have_names_of_their_own(of_classes, sample):
    for settings in ([], ["class=1"]):
        sample(f"ckpt={of_classes[0]}", "n=3", "seed=77", *settings)
    assert {path.name for path in (of_classes[0] / "samples").glob("seed_77*")} == {
        "seed_77.png",
        "seed_77_class_1.png",
    }


def test_class_that_the_generator_does_not_know_is_refused_with_those_it_does(run, of_classes, sample):
    with pytest.raises(ValueError, match=r"^class=11: the generator of .*last\.ckpt has the classes 0 to 2$"):
        sample(f"ckpt={of_classes[0]}", "class=11")
    with pytest.raises(ValueError, match=r"^class=3: the generator of .* has no classes; .* conditioning=projection$"):
        sample(f"ckpt={run[0]}", "class=3")


# --- Many images -------------------------------------------------------------------------------------------


def test_many_images_go_through_the_network_in_batches(run, sample, tmp_path, monkeypatch):
    folder, gan = run
    sizes, generate = [], GAN.generate
    monkeypatch.setattr(GAN, "generate", lambda self, z, labels=None: sizes.append(len(z)) or generate(self, z))
    sample(f"ckpt={folder}", f"n={2 * CHUNK_SIZE + 100}", "format=npy", f"out={tmp_path}/x.npy")
    assert sum(sizes) >= 2 * CHUNK_SIZE + 100 and max(sizes) <= CHUNK_SIZE
    assert_close(torch.from_numpy(np.load(tmp_path / "x.npy")), gan.sample(2 * CHUNK_SIZE + 100))


def test_first_images_of_many_are_those_of_few(run, sample, tmp_path):
    for num in 7, CHUNK_SIZE, CHUNK_SIZE + 8:
        sample(f"ckpt={run[0]}", f"n={num}", "format=npy", f"out={tmp_path}/{num}.npy")
    few, block, many = (torch.from_numpy(np.load(tmp_path / f"{num}.npy")) for num in (7, CHUNK_SIZE, CHUNK_SIZE + 8))
    assert_close(few, many[:7])  # a batch of another size may round otherwise
    assert_close(block, many[:CHUNK_SIZE])


@pytest.mark.parametrize("latent_dim", [1, 3, 4, 17, 100])
def test_noise_is_one_stream_whatever_the_number(latent_dim):
    def noise(num, **settings):
        return torch.cat(list(draw_latents(num, latent_dim, seed=5, **settings)))

    many = noise(2 * CHUNK_SIZE + 5)
    for num in 1, 2, 7, 16, 48, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE - 1, 2 * CHUNK_SIZE + 3:
        assert torch.equal(noise(num), many[:num])
    for num in 1, 7, CHUNK_SIZE, CHUNK_SIZE + 1:
        assert torch.equal(noise(num, truncation=0.5), noise(2 * CHUNK_SIZE, truncation=0.5)[:num])
    assert torch.unique(many).numel() > 0.99 * many.numel()  # no block is another one's copy


@pytest.mark.parametrize("format", ["png", "gif", "npy"])
def test_failure_on_the_way_leaves_the_file_that_was_there_and_no_other(run, sample, tmp_path, monkeypatch, format):
    def fail(self, z, labels=None):
        if len(z) > 1:
            raise KeyboardInterrupt
        return torch.zeros(1, *SHAPE)

    monkeypatch.setattr(GAN, "generate", fail)
    (tmp_path / "x").write_text("before")
    with pytest.raises(KeyboardInterrupt):
        sample(f"ckpt={run[0]}", "n=2", f"format={format}", f"out={tmp_path}/x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").read_text() == "before"


def test_array_that_does_not_fit_on_the_disk_is_refused_before_it_is_drawn(run, sample, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8))
    with pytest.raises(
        ValueError, match=r"^n=1000000 makes 0\.3 GB, and out=.*x\.npy has room for 0\.1 GB; draw fewer"
    ):
        sample(f"ckpt={run[0]}", "n=1000000", "format=npy", f"out={tmp_path}/x.npy")
    assert list(tmp_path.iterdir()) == []


PEAK = """
import resource
from gan_lightning.sample import main
main()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_a_million_images_take_the_memory_of_ten_thousand(tmp_path):
    def peak(num):
        """MiB."""
        words = [f"ckpt={VERSION_1}", f"n={num}", "format=npy", f"out={tmp_path}/x.npy"]
        result = subprocess.run(
            [sys.executable, "-c", PEAK, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert result.returncode == 0, result.stderr
        assert len(np.load(tmp_path / "x.npy", mmap_mode="r")) == num
        return int(result.stdout.split()[-1])

    assert abs(peak(1_000_000) - peak(10_000)) < 50


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("format", ["png", "npy"])
def test_progress_is_shown_on_a_terminal_only(run, sample, tmp_path, screen, format, terminal):
    shown = screen(terminal)
    sample(f"ckpt={run[0]}", "n=2", f"format={format}", f"out={tmp_path}/x")
    assert ("drawing images" in shown.getvalue()) == terminal and bool(shown.getvalue()) == terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_terminal_shows_that_an_animation_is_written(run, sample, tmp_path, monkeypatch, screen, terminal):
    shown, said = screen(terminal), []
    monkeypatch.setattr(
        "gan_lightning.images.save_gif", lambda *_, **__: time.sleep(0.3) or said.append(shown.getvalue())
    )
    (tmp_path / "x.gif.part").touch()
    sample(f"ckpt={run[0]}", "n=2", "format=gif", f"out={tmp_path}/x.gif")
    assert ("writing x.gif" in said[0]) == terminal and bool(shown.getvalue()) == terminal


# --- Walks -------------------------------------------------------------------------------------------------


def way(gan, num, steps):
    """The points of a walk, both ends of every way included: (num, steps, Z)."""
    (points,) = draw_latents(num, LATENT_DIM, seed=0)
    return slerp(points, points.roll(-1, dims=0), steps)


def test_walk_as_an_array_leads_through_the_samples_and_back_to_the_first(run, sample, tmp_path):
    folder, gan = run
    sample(f"ckpt={folder}", "n=3", "interpolate=true", "format=npy", f"out={tmp_path}/x.npy")
    images = torch.from_numpy(np.load(tmp_path / "x.npy"))
    assert images.shape == (3 * STEPS, *SHAPE)
    assert_close(images[::STEPS], gan.sample(3))
    assert_close(images, gan.generate(way(gan, 3, STEPS + 1)[:, :-1].flatten(0, 1)))
    jumps = (images - images.roll(1, dims=0)).flatten(1).norm(dim=1)
    assert jumps[0] < 2 * jumps[1:].max()  # from the last image to the first as well


def test_walk_as_a_grid_has_a_way_in_each_row(run, sample, tmp_path):
    folder, gan = run
    sample(f"ckpt={folder}", "n=3", "nrow=5", "interpolate=true", f"out={tmp_path}/x.png")
    assert torch.equal(picture(tmp_path / "x.png"), grid(gan.generate(way(gan, 3, 5).flatten(0, 1)), nrow=5))


def test_gif_is_an_endless_walk_of_a_second_from_sample_to_sample(run, sample, tmp_path):
    folder, gan = run
    sample(f"ckpt={folder}", "n=3", "format=gif", f"out={tmp_path}/x")
    expected = enlarge(to_uint8(gan.sample(3)))
    with Image.open(tmp_path / "x") as gif:
        assert gif.format == "GIF" and gif.info["loop"] == 0
        frames, at = {}, 0
        for frame in ImageSequence.Iterator(gif):
            frames[at] = pil_to_tensor(frame.convert("L"))
            at += frame.info["duration"]  # frames that look alike are stored as one
    assert at == 3000 and len(frames) > 3
    for second in range(3):
        assert torch.equal(frames[max(at for at in frames if at <= 1000 * second)], expected[second])
    assert frames[0].shape == (1, 128, 128)


def test_gif_lies_beside_the_other_pictures(run, sample):
    sample(f"ckpt={run[0]}", "n=2", "seed=3", "format=gif")
    assert (run[0] / "samples" / "seed_3.gif").exists()


def test_walk_on_a_line_stays_between_its_points():
    """In one dimension two z lie in the same direction from the origin, or in opposite ones."""
    points = torch.tensor([[1.0], [-2.0], [-0.5]])
    path = torch.cat(list(walk(points, steps=4)))
    assert_close(path[:, 0], torch.tensor([1, 0.25, -0.5, -1.25, -2, -1.625, -1.25, -0.875, -0.5, -0.125, 0.25, 0.625]))


def test_long_walk_comes_in_blocks():
    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    blocks = list(walk(points, steps=STEPS))
    assert len(blocks) > 1 and max(len(block) for block in blocks) <= CHUNK_SIZE
    assert_close(torch.cat(blocks)[::STEPS], points)


# --- Truncation --------------------------------------------------------------------------------------------


def test_truncated_noise_is_a_normal_one_cut_off():
    (z,) = draw_latents(CHUNK_SIZE, 100, seed=0)
    (cut,) = draw_latents(CHUNK_SIZE, 100, seed=0, truncation=0.7)
    inside = z.abs() <= 0.7
    assert torch.equal(cut[inside], z[inside])  # only what lies outside is drawn anew
    assert cut.abs().max() <= 0.7 and not torch.equal(cut, z.clamp(-0.7, 0.7))
    normal = torch.distributions.Normal(0, 1)
    t = torch.tensor(0.7)
    mass = 2 * normal.cdf(t) - 1
    variance = 1 - 2 * t * normal.log_prob(t).exp() / mass
    assert_close(cut.var(), variance, rtol=0.02, atol=0)
    assert_close((cut < 0.3).float().mean(), (normal.cdf(torch.tensor(0.3)) - normal.cdf(-t)) / mass, rtol=0, atol=0.01)


def test_truncation_draws_images_nearer_to_the_middle(run, sample, tmp_path):
    folder, gan = run
    for value in "null", "0.5", "9":
        sample(f"ckpt={folder}", "n=16", "format=npy", f"truncation={value}", f"out={tmp_path}/{value}.npy")
    free, cut, wide = (torch.from_numpy(np.load(tmp_path / f"{value}.npy")) for value in ("null", "0.5", "9"))
    assert torch.equal(cut, gan.generate(next(draw_latents(16, LATENT_DIM, 0, truncation=0.5))))
    assert cut.std(0).mean() < 0.8 * free.std(0).mean()
    assert torch.equal(wide, free)  # nothing lies outside


def test_mistake_is_one_line_on_the_terminal(run, run_cli):
    result = run_cli("n=0", module="gan_lightning.sample", cwd=run[0].parents[2])
    assert result.returncode != 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: n=0 must be ")
