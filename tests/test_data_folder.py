"""Any folder of pictures: its layouts, what is odd in it, and the cache."""

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import picture_files
import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from PIL import Image

from gan_lightning.cli.errors import explain
from gan_lightning.data import ImageDataModule
from gan_lightning.data import folder as folder_module
from gan_lightning.data.fetch import DataError
from gan_lightning.data.folder import FolderReader
from gan_lightning.files import conf_dir
from gan_lightning.train import main as train
from gan_lightning.train_judge import main as train_judge

SHAPE = (3, 8, 8)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "pictures"


@pytest.fixture
def decoded(monkeypatch):
    """The shapes that pictures were fitted to, one entry a picture."""
    calls, fit = [], folder_module.fit
    monkeypatch.setattr(folder_module, "fit", lambda picture, shape: calls.append(shape) or fit(picture, shape))
    return calls


def reader(root, shape=SHAPE):
    return FolderReader(shape, root.parent / "cache")


def save(path, color=(0, 0, 0), mode="RGB", size=(10, 10), **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **settings)


def numbered(root, names):
    """A picture of one colour at each place: red is its number."""
    for number, name in enumerate(names):
        save(root / name, (number, 0, 0))


def reds(root, split="train"):
    images, labels = reader(root).read(root, split)
    return images[:, 0, 0, 0].tolist(), labels.tolist()


# --- Layouts -------------------------------------------------------------------------------------------------


def test_class_folders_are_numbered_in_the_order_of_their_names(root):
    numbered(root, ["b/x.png", "a/deep/y.png", "c/z.jpg", "a/a.png"])
    assert reds(root) == ([3, 1, 0, 2], [0, 0, 1, 2])  # sorted by their paths


def test_labels_are_those_of_torchvisions_image_folder(root):
    from torchvision.datasets import ImageFolder

    picture_files.write(root, num=9, classes=3)
    theirs = ImageFolder(str(root))
    assert reds(root)[1] == theirs.targets


def test_pictures_in_one_folder_are_of_one_class_and_every_tenth_is_held_out(root):
    numbered(root, [f"{number:02d}.png" for number in range(25)])
    assert reds(root) == ([n for n in range(25) if n not in (9, 19)], [0] * 23)
    assert reds(root, "test") == ([9, 19], [0, 0])


def test_folders_train_and_test_are_the_splits(root):
    numbered(root, ["train/b/1.png", "train/a/1.png", "test/b/1.png", "notes/1.png"])
    assert reds(root) == ([1, 0], [0, 1])
    assert reds(root, "test") == ([2], [1])


def test_too_few_pictures_for_a_test_split_are_told_of_when_it_is_asked_for(root):
    numbered(root, ["1.png", "2.png"])
    assert reds(root)[0] == [0, 1]
    with pytest.raises(ValueError, match=r"data.root=.* has no test split: every 10th picture .* train/ and test/"):
        reds(root, "test")


def test_what_was_read_is_told_in_one_line(root, caplog):
    picture_files.write(root, num=20)
    with caplog.at_level(logging.INFO):
        reader(root).fetch(root)
    assert caplog.messages == [
        f"Reading 20 files of {root}, for this once",
        f"{root}: pictures of 2 classes (class_0, class_1), 18 to train and 2 to test, every 10th to test",
    ]


# --- Odd files -----------------------------------------------------------------------------------------------


def odd_files(root):
    save(root / "grey.png", 7, "L")
    save(root / "alpha.png", (0, 0, 0, 0), "RGBA")
    save(root / "palette.gif", 0, "P")
    save(root / "cmyk.jpg", (0, 255, 255, 0), "CMYK")
    save(root / "sixteen.png", 257, "I;16")
    save(root / "pixel.bmp", size=(1, 1))
    save(root / "wide.webp", size=(500, 2))
    save(root / "without_suffix.png")
    (root / "without_suffix.png").rename(root / "without_suffix")
    save(root / "big.jpg", size=(800, 600), quality=95)
    readable = len(list(root.iterdir()))
    (root / "truncated.webp").write_bytes((root / "wide.webp").read_bytes()[:40])
    (root / "truncated.jpg").write_bytes((root / "big.jpg").read_bytes()[:500])
    (root / "empty.png").write_bytes(b"")
    (root / "notes.txt").write_text("not a picture")
    (root / "text.png").write_text("<html>")
    (root / "nowhere.png").symlink_to(root / "no such file")
    save(root / "float.tiff", 0.5, "F")
    save(root / ".hidden.png")
    save(root / ".hidden" / "a.png")
    save(root / "__MACOSX" / "b.png")
    os.mkfifo(root / "pipe.png")  # to open it would be to wait for ever
    return readable


def test_odd_pictures_are_read_and_the_others_left_out_with_one_warning(root, caplog):
    readable = odd_files(root)
    with caplog.at_level(logging.WARNING):
        reader(root).fetch(root)
    images, _ = reader(root).read(root, "train")
    assert len(images) == readable == 9
    assert [tuple(image[:, 0, 0].tolist()) for image in images[:1]] == [(255, 255, 255)]  # alpha.png, the first
    (line,) = caplog.messages
    assert line.startswith(f"data.root={root}: 7 files are left out") and "\n" not in line
    assert line.endswith(
        ": empty.png, float.tiff (pixels are floating-point numbers, of no known range), notes.txt, nowhere.png, "
        "text.png, …"
    )


def test_it_warns_at_every_start_and_not_only_when_it_reads(root, caplog):
    odd_files(root)
    reader(root).fetch(root)
    caplog.clear()
    reader(root).fetch(root)
    assert len([line for line in caplog.messages if "left out" in line]) == 1


def test_pictures_beside_the_folders_of_classes_are_left_out(root, caplog):
    numbered(root, ["a/1.png", "b/1.png", "cover.png"])
    assert reds(root) == ([0, 1], [0, 1])
    reader(root).fetch(root)
    assert "1 files are left out" in caplog.text and "cover.png" in caplog.text


def test_links_are_followed_but_not_in_circles(root):
    numbered(root, ["a/1.png", "b/2.png"])
    save(root.parent / "elsewhere" / "3.png", (2, 0, 0))
    (root / "c").symlink_to(root.parent / "elsewhere")
    (root / "a" / "up").symlink_to(root)
    (root / "b" / "over").symlink_to("../a")  # to pictures that b has too, and from there to the top again
    (root / "b" / "far_up").symlink_to(root.parent.parent)
    assert reds(root) == ([0, 1, 0, 2], [0, 1, 1, 2])
    (root / "out").symlink_to("..")
    (root.parent / "elsewhere" / "deep").mkdir()
    (root.parent / "elsewhere" / "deep" / "back").symlink_to("../..")
    (root.parent / "link").symlink_to(root)
    assert reds(root.parent / "link") == ([0, 1, 0, 2], [0, 1, 1, 2])


def test_folder_without_a_picture_is_refused_in_one_line(root):
    with pytest.raises(ValueError, match=r"^data.root=.*pictures is no folder; name one with pictures"):
        reader(root).fetch(root)
    root.mkdir()
    with pytest.raises(ValueError, match=r"^data.root=.* has no picture that can be read, among 0 files; name a"):
        reader(root).fetch(root)
    for number in range(7):
        (root / f"{number}.txt").write_text("")
    with pytest.raises(ValueError, match=r"among 7 files: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, …; name a folder"):
        reader(root).fetch(root)


def test_missing_folder_is_asked_for_by_its_key():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = hydra_compose("train", ["data=image_folder"])
    with pytest.raises(MissingMandatoryValue) as refused:
        instantiate(config.data)
    assert explain(refused.value) == "data.root is not set; add data.root=…"


def test_shape_that_pictures_cannot_have_is_refused():
    with pytest.raises(
        ValueError, match=r"^image_shape=\[4, 8, 8\]: pictures have 1 .* or 3 .*; try data\.image_shape=\[3,8,8\]"
    ):
        FolderReader((4, 8, 8), ".")


# --- The cache -----------------------------------------------------------------------------------------------


def test_second_start_opens_no_picture(root, decoded):
    picture_files.write(root)
    first = reader(root).read(root, "train")
    assert len(decoded) == 80
    again = reader(root).read(root, "train")
    assert len(decoded) == 80
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])


@pytest.mark.parametrize("change", ["add", "remove", "rename", "overwrite", "touch"])
def test_changed_folder_is_read_anew_into_the_same_file(root, decoded, change):
    picture_files.write(root, num=20)
    reader(root).fetch(root)
    path = next(root.rglob("*.png"))
    if change == "add":
        save(path.with_name("new.png"))
    elif change == "remove":
        path.unlink()
    elif change == "rename":
        path.rename(path.with_name("other.png"))
    elif change == "overwrite":
        save(path)
    else:
        os.utime(path, ns=(1, 1))
    reader(root).fetch(root)
    assert len(decoded) == 40 + (change == "add") - (change == "remove")
    assert len(list((root.parent / "cache").glob("*.safetensors"))) == 1


def test_each_shape_has_a_file_of_its_own(root, decoded):
    picture_files.write(root, num=20)
    for shape in (SHAPE, (1, 8, 8), SHAPE, (1, 8, 8)):
        assert reader(root, shape).read(root, "train")[0].shape == (18, *shape)
    assert len(decoded) == 40


@pytest.mark.parametrize("name", ["x" * 250, "圖" * 85, "🎉" * 60, "a.b" * 80, "it's [1], {ü}=#\\"], ids=range(5))
def test_folder_of_any_name_is_kept_in_a_file(tmp_path, decoded, name):
    picture_files.write(tmp_path / name, num=20)
    for _ in range(2):
        assert len(reader(tmp_path / name).read(tmp_path / name, "train")[0]) == 18
    assert len(decoded) == 20
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 1


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"x" * 99])
def test_damaged_cache_is_made_anew(root, decoded, damage):
    picture_files.write(root, num=20)
    expected = reader(root).read(root, "train")[0]
    (path,) = (root.parent / "cache").glob("*.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(reader(root).read(root, "train")[0], expected) and len(decoded) == 40


def test_reading_that_is_broken_off_leaves_nothing_and_can_be_done_again(root, monkeypatch):
    picture_files.write(root, num=20)
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "save_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            reader(root).fetch(root)
    assert not list((root.parent / "cache").glob("*.safetensors*"))
    assert len(reader(root).read(root, "train")[0]) == 18


def test_cache_that_cannot_be_written_is_named_in_one_line(root):
    picture_files.write(root, num=20)
    (root.parent / "cache").write_text("not a folder")
    with pytest.raises(DataError, match=r"^data.reader.cache=.*cache: .*set data.reader.cache to another folder$"):
        reader(root).fetch(root)


def test_two_readers_at_once_read_the_pictures_once(root, decoded):
    """Locks of files know no threads: as two processes of a sweep would."""
    picture_files.write(root, num=40)
    barrier = threading.Barrier(2)

    def read(_):
        barrier.wait(10)
        return reader(root).read(root, "train")[0]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(read, range(2))
    assert torch.equal(first, second) and len(first) == 36
    assert len(decoded) == 40


@pytest.mark.slow
def test_second_start_with_ten_thousand_files_opens_none_and_takes_seconds(root, monkeypatch):
    picture_files.write(root, num=10_000, size=(8, 8))
    reader(root).fetch(root)
    monkeypatch.setattr(folder_module.Image, "open", lambda path: pytest.fail(f"opened {path}"))
    start = time.process_time()  # not that on the clock, which is of a busy machine
    reader(root).fetch(root)
    assert len(reader(root).read(root, "train")[0]) == 9000
    assert time.process_time() - start < 5


# --- Without scores ------------------------------------------------------------------------------------------


def test_run_on_a_folder_trains_and_says_once_why_it_has_no_scores(compose, tmp_path, caplog):
    settings = picture_files.write(tmp_path / "cats", num=40)
    folder = ["data=image_folder", *settings]
    with caplog.at_level(logging.INFO):
        train(compose(*folder, "trainer=debug", "data.batch_size=4", small=False))
    (line,) = [line for line in caplog.messages if "no scores" in line]
    assert line.endswith("conf/data/image_folder.yaml says more")
    assert (tmp_path / "samples" / "epoch_0001.png").is_file()
    with pytest.raises(ValueError, match=r"data.name=image_folder: name the judge after your pictures"):
        train_judge(compose(*folder, config_name="train_judge"))


def test_data_sets_without_scores_say_in_their_file_how_to_get_a_judge():
    for file in (conf_dir() / "data").glob("*.yaml"):
        text = file.read_text()
        assert ("metrics: none" in text) == (f"gan_lightning.train_judge data={file.stem}" in text)


def test_resumed_run_notices_that_the_pictures_have_changed(compose, tmp_path):
    """Also by one pixel; but not that the same pictures lie elsewhere, at other times."""
    picture_files.write(tmp_path / "cats", num=40)

    def run(root, steps, **more):
        settings = ["data=image_folder", f"data.root={root}", f"data.reader.cache={tmp_path}/cache", "metrics=none"]
        config = compose(*settings, "trainer=debug", "data.batch_size=4", f"trainer.max_steps={steps}", small=False)
        (tmp_path / ".hydra").mkdir(exist_ok=True)
        OmegaConf.save(config, tmp_path / ".hydra" / "config.yaml")
        config.resume = more.get("resume")
        train(config)

    last = str(tmp_path / "checkpoints" / "last.ckpt")
    run(tmp_path / "cats", 1)
    (tmp_path / "cats").rename(tmp_path / "moved")
    for path in (tmp_path / "moved").rglob("*.png"):
        os.utime(path, (0, 0))
    run(tmp_path / "moved", 2, resume=last)
    path = next((tmp_path / "moved").rglob("*.png"))
    with Image.open(path) as picture:
        changed = picture.convert("RGB")
    changed.paste("white", (0, 0, 8, 8))
    changed.save(path)
    ended = (tmp_path / "metrics.json").read_text()
    with pytest.raises(
        ValueError, match=rf"^data.root={tmp_path}/moved: its images or labels are not those .* without resume="
    ):
        run(tmp_path / "moved", 3, resume=last)
    assert (tmp_path / "metrics.json").read_text() == ended


def test_who_chose_to_have_no_scores_is_not_told_why(compose, caplog):
    with caplog.at_level(logging.INFO):
        train(compose("trainer.log_every_n_steps=1"))
    assert "no scores" not in caplog.text


# --- What a folder is taken for ------------------------------------------------------------------------------


@pytest.mark.parametrize("test", ["test", "val", "valid", "validation"])
def test_a_folder_for_validation_beside_train_is_the_test_split(root, test):
    picture_files.write(root / "train", num=8)
    picture_files.write(root / test, num=4)
    images, labels = reader(root).read(root, "train")
    assert len(images) == 8 and labels.tolist() == [0] * 4 + [1] * 4
    assert len(reader(root).read(root, "test")[0]) == 4


def test_the_folder_named_test_is_the_test_split_where_there_are_both(root):
    for name, num in ("train", 8), ("val", 6), ("test", 4):
        picture_files.write(root / name, num=num)
    assert [len(reader(root).read(root, split)[0]) for split in ("train", "test")] == [8, 4]


def test_a_picture_of_too_many_pixels_is_left_out_with_the_reason(root, caplog, monkeypatch):
    picture_files.write(root, num=20)
    save(root / "class_0" / "huge.png", size=(300, 300))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    with caplog.at_level(logging.INFO):
        reader(root).fetch(root)
    assert "class_0/huge.png (over 0 megapixels; make it smaller)" in caplog.text
    assert "pictures of 2 classes (class_0, class_1)" in caplog.text


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_more_classes_than_there_are_is_told(root, caplog, classes):
    settings = picture_files.write(root, num=30, classes=classes)
    data = ImageDataModule(root, reader(root), SHAPE, batch_size=4, num_classes=5, name="cats")
    assert settings and data.images().shape[0] == 27
    line = f"data.num_classes=5: the train split of cats has images of only {classes} classes, and the others stay"
    assert line in caplog.text and f"try data.num_classes={classes}" in caplog.text


@pytest.mark.parametrize("beside", ["", "train"])
def test_a_class_folder_without_a_picture_is_told(root, caplog, beside):
    picture_files.write(root / beside, num=30, classes=3)
    (root / beside / "a_new_one").mkdir()
    (root / beside / ".hidden").mkdir()
    if beside:
        (root / "test").mkdir()
        for folder in sorted((root / beside).iterdir()):
            if any(folder.iterdir()):
                (root / "test" / folder.name).mkdir()
                first = sorted(folder.iterdir())[0]
                first.rename(root / "test" / folder.name / first.name)
    reader(root).fetch(root)
    (line,) = [record.getMessage() for record in caplog.records if "without a picture" in record.getMessage()]
    assert line.endswith("are no classes, and the others are numbered without them: a_new_one")


def test_folders_that_all_hold_pictures_are_not_spoken_of(root, caplog):
    picture_files.write(root, num=30, classes=3)
    reader(root).fetch(root)
    assert "without a picture" not in caplog.text
