import torch
from PIL import Image

from gan_lightning.metrics.figures import BAR, HEIGHT, MARGIN, beside_nearest, by_class, class_histogram, save_figures
from gan_lightning.metrics.memorisation import Nearness
from gan_lightning.metrics.scores import Scores

DARK, LIGHT = (0x1F, 0x4E, 0x79), (0xB8, 0xCC, 0xE0)


def numbered(num, channels=1):
    """Images of 2x2 pixels, each of one shade: its number."""
    return torch.arange(num, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, 2, 2).contiguous()


def size(path):
    with Image.open(path) as picture:
        return picture.size


def shades(images):
    return images[:, 0, 0, 0].tolist()


def scores_of(classes, num_classes, ratio, image):
    counts = torch.tensor(classes).bincount(minlength=num_classes).tolist()
    near = Nearness(torch.ones(len(classes)), torch.tensor(ratio), torch.tensor(image))
    return Scores({}, {}, counts, torch.tensor(classes), near)


def test_by_class_shows_the_first_samples_of_each_class_in_a_row_of_their_own():
    rows = by_class(numbered(8), torch.tensor([2, 0, 2, 0, 2, 0, 2, 3]), num_classes=4, each=3)
    assert rows.shape == (12, 1, 2, 2) and rows.dtype == torch.uint8
    assert shades(rows) == [1, 3, 5, 0, 0, 0, 0, 2, 4, 7, 0, 0]  # none of class 1: black


def test_beside_nearest_pairs_the_likeliest_copies_with_what_they_copy():
    scores = scores_of([0, 0, 0, 0], 1, ratio=[0.9, 0.1, 0.5, 0.3], image=[10, 11, 12, 13])
    pairs = beside_nearest(numbered(4), numbered(20), scores, pairs=3)
    assert shades(pairs) == [1, 11, 3, 13, 2, 12]
    assert len(beside_nearest(numbered(4), numbered(20), scores)) == 8  # fewer samples than pairs: all of them


def bar(picture, number, side):
    """Height in pixels of one bar of a class."""
    left = MARGIN + number * 3 * BAR + side * BAR
    column = [picture.getpixel((left + BAR // 2, y)) for y in range(MARGIN, MARGIN + HEIGHT + 1)]
    return column.count((DARK, LIGHT)[side])


def test_bars_of_the_histogram_are_as_high_as_the_shares():
    picture = class_histogram([30, 0, 10], [100, 50, 50])
    assert picture.size == (2 * MARGIN + 9 * BAR, HEIGHT + 2 * MARGIN)
    heights = [[bar(picture, number, side) for number in range(3)] for side in (0, 1)]
    for found, shares in zip(heights, [(0.75, 0, 0.25), (0.5, 0.25, 0.25)], strict=True):
        for pixels, share in zip(found, shares, strict=True):
            assert abs(pixels - HEIGHT * share / 0.75) <= 2


def test_thousand_classes_make_pictures_of_a_size_to_look_at(tmp_path):
    classes = torch.arange(2000) % 1000
    rows = by_class(torch.zeros(2000, 1, 2, 2, dtype=torch.uint8), classes, num_classes=1000)
    assert len(rows) == 50 * 10
    picture = class_histogram([2] * 1000, [3] * 500 + [1] * 500)
    assert picture.size == (2 * MARGIN + 3000, HEIGHT + 2 * MARGIN)
    heights = [[picture.getpixel((MARGIN + 3 * number, y)) for y in range(HEIGHT + MARGIN)].count(DARK)
               for number in (0, 999)]  # fmt: skip
    assert all(abs(height - HEIGHT * 2 / 3) <= 2 for height in heights)


def test_draw_writes_three_pictures_of_grey_and_of_colour_images(tmp_path):
    for channels in (1, 3):
        scores = scores_of([0, 1] * 50, 2, ratio=[0.5] * 100, image=list(range(100)))
        save_figures(numbered(100, channels), numbered(120, channels), scores, torch.tensor([7, 7]), tmp_path)
        sizes = {path.name: size(path) for path in tmp_path.iterdir()}
        assert sizes == {
            "classes.png": (10 * 4 + 2, 2 * 4 + 2),  # ten of each class, two pixels between
            "nearest.png": (16 * 4 + 2, 8 * 4 + 2),  # 64 pairs
            "class_histogram.png": (2 * MARGIN + 6 * BAR, HEIGHT + 2 * MARGIN),
        }


def test_without_classes_of_the_data_only_the_nearest_images_are_drawn(tmp_path):
    scores = scores_of([5, 9] * 50, 12, ratio=[0.5] * 100, image=list(range(100)))
    scores.class_counts = []
    save_figures(numbered(100), numbered(120), scores, torch.zeros(12), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["nearest.png"]
