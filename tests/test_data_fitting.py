"""Pictures of every kind become images of one shape."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import center_crop, resize, to_pil_image

from gan_lightning.data.fitting import Unfit, fit


def noise(*shape):
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def colors(image):
    """The one colour of an image of one."""
    flat = image.flatten(1)
    assert (flat == flat[:, :1]).all()
    return flat[:, 0].tolist()


def test_image_of_the_right_shape_is_left_as_it_is():
    for channels in (1, 3):
        image = noise(channels, 8, 8)
        assert torch.equal(fit(to_pil_image(image), (channels, 8, 8)), image)


@pytest.mark.parametrize(("width", "height"), [(90, 60), (60, 90), (64, 64), (17, 200), (20, 20)])
def test_short_side_is_resized_and_the_middle_kept(width, height):
    ramp = torch.arange(height * width).view(1, height, width) * 255 // (height * width)
    picture = to_pil_image(torch.cat([ramp, ramp.flip(2), ramp.flip(1)]).to(torch.uint8))
    ours = fit(picture, (3, 32, 32)).float()
    theirs = center_crop(resize(picture, 32, antialias=True), [32, 32])
    assert ours.shape == (3, 32, 32)
    # Cropping first leaves out what is cropped anyway; torchvision's rounding moves the picture by half a pixel.
    assert (ours - torch.from_numpy(np.array(theirs)).permute(2, 0, 1).float()).abs().mean() < 6


def test_stripes_finer_than_a_pixel_become_grey():
    stripes = (torch.arange(256) % 2 * 255).to(torch.uint8).expand(1, 256, 256)
    assert (fit(to_pil_image(stripes), (1, 16, 16)).float() - 127.5).abs().max() < 8  # no moire


def test_height_comes_before_width():
    assert fit(Image.new("RGB", (40, 20)), (3, 8, 16)).shape == (3, 8, 16)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 100, [100, 100, 100]),
        ("1", 1, [255, 255, 255]),
        ("RGB", (10, 20, 30), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 0), [255, 255, 255]),
        ("RGBA", (0, 0, 0, 128), [127, 127, 127]),
        ("LA", (100, 0), [255, 255, 255]),
        ("CMYK", (255, 0, 0, 0), [0, 255, 255]),
        ("I;16", 100 * 257, [100, 100, 100]),
        ("I", 65535, [255, 255, 255]),
    ],
)
def test_every_mode_becomes_colour(mode, color, expected):
    assert colors(fit(Image.new(mode, (20, 20), color), (3, 8, 8))) == expected


def test_colour_becomes_grey_by_its_brightness():
    assert colors(fit(Image.new("RGB", (9, 9), (255, 0, 0)), (1, 8, 8))) == [76]  # 0.299 * 255


def test_palettes_are_looked_up_and_their_transparent_entry_is_white(tmp_path):
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    assert colors(fit(picture, (3, 8, 8))) == [200, 100, 50]
    picture.save(tmp_path / "x.gif", transparency=1)
    with Image.open(tmp_path / "x.gif") as opened:
        assert colors(fit(opened, (3, 8, 8))) == [255, 255, 255]


def test_picture_is_turned_as_its_camera_was_held(tmp_path):
    picture = Image.new("RGB", (16, 16))
    picture.paste((255, 0, 0), (0, 0, 16, 8))  # red above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as opened:
        image = fit(opened, (3, 16, 16))
    assert (image[0, :, 8:] == 255).all() and (image[0, :, :8] == 0).all()  # red on the right


def test_one_pixel_fills_the_image():
    assert colors(fit(Image.new("RGB", (1, 1), (1, 2, 3)), (3, 32, 32))) == [1, 2, 3]
    assert fit(Image.new("RGB", (1, 5000)), (3, 32, 32)).shape == (3, 32, 32)


def test_pixels_of_no_known_range_are_refused():
    with pytest.raises(ValueError, match="floating-point"):
        fit(Image.new("F", (8, 8), 0.5), (1, 8, 8))


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [("I", 200, 200), ("I", 255, 255), ("I", 0, 0), ("I", 51400, 200), ("I;16", 255, 0), ("I;16", 51400, 200)],
)
def test_grey_of_more_bits_keeps_its_brightness(tmp_path, mode, pixel, expected):
    dtype = {"I": np.int32, "I;16": np.uint16}[mode]
    Image.fromarray(np.full((8, 8), pixel, dtype)).save(tmp_path / "x.tiff")
    with Image.open(tmp_path / "x.tiff") as opened:
        assert opened.mode == mode and colors(fit(opened, (1, 8, 8))) == [expected]


@pytest.mark.parametrize("pixel", [-1, 70000])
def test_whole_numbers_of_no_known_range_are_refused(pixel):
    with pytest.raises(Unfit, match=f"whole numbers from {pixel} to {pixel}, of no known range"):
        fit(Image.new("I", (8, 8), pixel), (1, 8, 8))


def test_the_transparent_grey_of_16_bits_is_white_and_no_other(tmp_path):
    pixels = np.full((8, 8), 5140, np.uint16)
    pixels[4:] = 5141  # differs below the eighth bit
    Image.fromarray(pixels).save(tmp_path / "x.png", transparency=5140)
    with Image.open(tmp_path / "x.png") as opened:
        image = fit(opened, (1, 8, 8))
    assert (image[0, :4] == 255).all() and (image[0, 4:] == 20).all()
