import pytest
import torch
from PIL import Image, ImageSequence
from torch.testing import assert_close
from torchvision.transforms.functional import pil_to_tensor

from gan_lightning.images import grid, normalize, save_gif, save_png, to_uint8


def test_normalize_maps_the_darkest_and_the_brightest_pixel_to_the_ends_of_tanh():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3)
    assert_close(normalize(pixels), torch.tensor([-1.0, -0.6, 1.0]).view(1, 1, 3))
    assert normalize(pixels).dtype == torch.float32
    assert pixels.flatten().tolist() == [0, 51, 255]  # in place only on a copy


def test_to_uint8_undoes_normalize_for_every_pixel_value():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert torch.equal(to_uint8(normalize(pixels)), pixels)


def test_to_uint8_rounds_and_clips():
    images = torch.tensor([-1.5, -1.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 1.0, 1.5]).view(1, 1, 6)
    assert to_uint8(images).flatten().tolist() == [0, 0, 0, 1, 255, 255]


def test_to_uint8_takes_bfloat16_and_leaves_its_input():
    images = torch.zeros(1, 2, 2, dtype=torch.bfloat16)
    assert to_uint8(images).unique().tolist() == [128]
    assert images.unique().tolist() == [0]


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_lays_images_out_row_by_row_with_a_border(channels):
    images = torch.stack([torch.full((channels, 4, 4), value) for value in (-1.0, 0.0, 1.0)])
    picture = grid(images, nrow=2)
    assert picture.shape == (3, 2 * (4 + 2) + 2, 2 * (4 + 2) + 2) and picture.dtype == torch.uint8
    assert picture[:, 2:6, 2:6].unique().tolist() == [0]
    assert picture[:, 2:6, 8:12].unique().tolist() == [128]
    assert picture[:, 8:12, 2:6].unique().tolist() == [255]
    assert picture[:, :2].unique().tolist() == [64]  # the border is neither black nor white


def test_png_holds_the_picture_pixel_by_pixel(tmp_path):
    picture = torch.randint(256, (3, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    save_png(picture, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        assert torch.equal(pil_to_tensor(image), picture)


@pytest.mark.parametrize("num_frames", [1, 3])
def test_gif_plays_every_frame_in_order_and_without_end(tmp_path, num_frames):
    levels = [0, 128, 255][:num_frames]
    save_gif([torch.full((3, 8, 8), level, dtype=torch.uint8) for level in levels], tmp_path / "x.gif", seconds=1.5)
    with Image.open(tmp_path / "x.gif") as gif:
        frames = [
            (frame.convert("L").getpixel((4, 4)), frame.info["duration"]) for frame in ImageSequence.Iterator(gif)
        ]
        assert [level for level, _ in frames] == levels
        assert [duration for _, duration in frames] == [500] * (num_frames - 1) + [1000]  # the last one stays
        assert gif.info["loop"] == 0
