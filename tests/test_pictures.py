import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_conditioning import K, conditional_gan, labelled
from test_gan import BATCH_SIZE, BATCHES, SHAPE, RandomImages, fit, small_gan
from torchvision.transforms.functional import pil_to_tensor

from gan_lightning.callbacks import pictures
from gan_lightning.callbacks.pictures import Pictures
from gan_lightning.data.module import BatchLoader
from gan_lightning.ema import EMA
from gan_lightning.images import grid, normalize
from gan_lightning.models import mlp
from gan_lightning.trackers.tensorboard import TensorBoard


def read(path):
    with Image.open(path) as image:
        return pil_to_tensor(image)


def names(folder):
    return sorted(path.name for path in (folder / "samples").iterdir())


def num_frames(folder):
    with Image.open(folder / "samples" / "training.gif") as gif:
        return gif.n_frames


def test_one_picture_before_training_and_one_after_every_epoch(tmp_path):
    fit(small_gan(), tmp_path, 3 * BATCHES, callbacks=[Pictures(num_images=4, nrow=2)])
    epochs = [f"epoch_{epoch:04d}.png" for epoch in range(4)]
    assert names(tmp_path) == [*epochs, "real.png", "training.gif"]
    assert num_frames(tmp_path) == 4
    images = [read(tmp_path / "samples" / name) for name in epochs]
    assert {image.shape for image in images} == {(3, 2 * (8 + 2) + 2, 2 * (8 + 2) + 2)}
    assert not any(torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


def test_a_picture_is_whole_or_not_there(tmp_path, monkeypatch):
    def write_half(picture, path):
        path.write_bytes(b"\x89PNG")
        raise OSError("No space left on device")

    monkeypatch.setattr(pictures.images, "save_png", write_half)
    with pytest.raises(OSError, match="No space"):
        fit(small_gan(), tmp_path, BATCHES, callbacks=[Pictures(num_images=4)])
    assert names(tmp_path) == []


def test_every_n_epochs_skips_pictures_but_never_the_last(tmp_path):
    fit(small_gan(), tmp_path, 4 * BATCHES + 1, callbacks=[Pictures(num_images=4, every_n_epochs=3)])
    assert [name for name in names(tmp_path) if name.startswith("epoch")] == [
        "epoch_0000.png", "epoch_0003.png", "epoch_0005.png",
    ]  # fmt: skip


def test_picture_shows_what_one_fixed_noise_becomes_in_the_averaged_generator(tmp_path):
    gan = small_gan(ema=EMA(warmup=1.0))
    fit(gan, tmp_path, BATCHES, callbacks=[Pictures(num_images=4, nrow=2)])
    z = torch.randn(4, gan.latent_dim, generator=torch.Generator().manual_seed(pictures.NOISE_SEED))
    assert torch.equal(read(tmp_path / "samples" / "epoch_0001.png"), grid(gan.ema.generator.eval()(z), nrow=2))
    assert not torch.equal(grid(gan.generator.eval()(z), nrow=2), grid(gan.ema.generator(z), nrow=2))


def test_real_picture_shows_images_from_all_over_the_data_set_so_that_no_class_is_missing(tmp_path):
    fit(small_gan(), tmp_path, 1, callbacks=[Pictures(num_images=4, nrow=2)])
    real, _ = RandomImages().read(None, "train")
    shown = real[[0, 15, 31, 47]]  # of 48: a folder's first ones are all of one class
    assert torch.equal(read(tmp_path / "samples" / "real.png"), grid(normalize(shown), nrow=2))


def test_tensorboard_shows_samples_by_iteration_beside_real_images(tmp_path):
    logger = TensorBoard(tmp_path, name="", version="")
    fit(small_gan(), tmp_path, 2 * BATCHES, callbacks=[Pictures(num_images=4)], logger=logger)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    steps = {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}
    by_epoch = [0, BATCHES, 2 * BATCHES]
    assert steps == {"samples/fixed": by_epoch, "samples/interpolation": by_epoch, "samples/real": [0]}


def test_animation_of_many_epochs_is_thinned_and_ends_with_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_FRAMES", 2)
    fit(small_gan(), tmp_path, 3 * BATCHES, callbacks=[Pictures(num_images=4)])
    with Image.open(tmp_path / "samples" / "training.gif") as gif:
        assert gif.n_frames == 2
        gif.seek(1)
        last = pil_to_tensor(gif.convert("L")).float()
    expected = read(tmp_path / "samples" / "epoch_0003.png").float().mean(0, keepdim=True)
    assert (last - expected).abs().mean() < 2  # a GIF has 256 colours


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40), "cut short", "smaller", "folder"]
)
def test_a_file_that_is_no_picture_is_left_out_and_the_run_is_done(tmp_path, caplog, content):
    stranger = tmp_path / "samples" / "epoch_0000.5.png"
    (stranger if content == "folder" else stranger.parent).mkdir(parents=True)
    if content == "smaller":
        Image.new("RGB", (3, 3)).save(stranger)
    elif content == "cut short":
        Image.effect_noise((64, 64), 50).save(stranger)
        stranger.write_bytes(stranger.read_bytes()[:200])
    elif content != "folder":
        stranger.write_bytes(content)
    fit(small_gan(), tmp_path, 2 * BATCHES, callbacks=[Pictures(num_images=4, nrow=2)])
    assert num_frames(tmp_path) == 3
    warnings = [record.getMessage() for record in caplog.records if "is no picture" in record.getMessage()]
    assert ("leaves out 1 pictures of another size" in caplog.text) == (content == "smaller")
    assert len(warnings) == (content != "smaller") and all("epoch_0000.5.png" in line for line in warnings)


def test_data_without_a_data_module_gives_pictures_too(tmp_path):
    images, labels = RandomImages().read(None, "train")
    loader = BatchLoader(normalize(images), labels, BATCH_SIZE)
    fit(small_gan(), tmp_path, 1, callbacks=[Pictures(num_images=4)], data=loader)
    assert names(tmp_path) == ["epoch_0000.png", "epoch_0001.png", "training.gif"]


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
def test_color_images_keep_their_colors(tmp_path):
    shape = (3, *SHAPE[1:])
    gan = small_gan(generator=mlp.Generator(4, shape, [8]), discriminator=mlp.Discriminator(shape, [8]))
    torch.nn.init.zeros_(gan.generator.layers[-2].weight)
    red = torch.cat([torch.full((64,), 9.0), torch.full((128,), -9.0)])
    gan.generator.layers[-2].bias.data = red
    loader = BatchLoader(torch.zeros(16, *shape), torch.zeros(16, dtype=torch.int64), BATCH_SIZE)
    fit(gan, tmp_path, 1, callbacks=[Pictures(num_images=1)], data=loader)
    assert read(tmp_path / "samples" / "epoch_0000.png")[:, 5, 5].tolist() == [255, 0, 0]


def test_picture_of_a_conditional_generator_has_a_row_for_each_class_and_a_column_for_each_z(tmp_path):
    gan = conditional_gan("mlp", "concat")
    fit(gan, tmp_path, 1, callbacks=[Pictures(num_images=64, nrow=4)], data=labelled())
    z = torch.randn(4, gan.latent_dim, generator=torch.Generator().manual_seed(pictures.NOISE_SEED))
    rows = [gan.generator.eval()(z, torch.full((4,), number)) for number in range(K)]
    assert torch.equal(read(tmp_path / "samples" / "epoch_0001.png"), grid(torch.cat(rows), nrow=4))
    assert not torch.equal(rows[0], rows[1])


def test_interpolation_of_a_conditional_generator_keeps_the_class_of_a_row(tmp_path, monkeypatch):
    asked = []
    gan = conditional_gan("mlp", "concat")
    gan.generator.register_forward_hook(lambda _, inputs, __: asked.append(inputs[1]))
    fit(gan, tmp_path, 1, callbacks=[Pictures(nrow=4)], data=labelled())
    rows = asked[2].view(8, 10)  # after the look at the sizes, and the picture
    assert (rows == rows[:, :1]).all() and torch.equal(rows[:, 0], torch.arange(8) % K)


@pytest.mark.parametrize("key", ["num_images", "nrow", "every_n_epochs"])
def test_count_below_one_is_refused_by_its_key(key):
    with pytest.raises(ValueError, match=f"^{key}=0 must be 1 or more"):
        Pictures(**{key: 0})
