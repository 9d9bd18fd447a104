"""CIFAR-10 through torchvision's own reader, from files in its own format."""

import hashlib
import pickle

import cifar_files
import pytest
import torch
from cifar_files import ARCHIVE, FOLDER, NAMES, SmallCIFAR10
from test_data_fetch import dead_mirror, serve, silent, tried  # noqa: F401
from torchvision.datasets import CIFAR10

from gan_lightning.data import fetch, vision
from gan_lightning.data.vision import VisionReader

SHAPE = (3, 32, 32)


@pytest.fixture
def published(tmp_path):
    """A folder with the files and with their archive."""
    root = tmp_path / "published"
    cifar_files.write(root)
    cifar_files.pack(root, root / ARCHIVE)
    return root


def reader(published, *urls, image_shape=SHAPE, dataset=SmallCIFAR10):
    return VisionReader(
        dataset, image_shape, cifar_files.checksums(published), urls, train={"train": True}, test={"train": False}
    )


def assert_complete(root, published):
    for name in NAMES:
        assert (root / FOLDER / name).read_bytes() == (published / FOLDER / name).read_bytes()
    assert not list(root.rglob("*.part")) and not (root / FOLDER / "readme.html").exists()


# --- Reading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "count"), [("train", 200), ("test", 40)])
def test_images_are_those_of_torchvisions_reader(published, split, count):
    images, labels = reader(published).read(published, split)
    theirs = SmallCIFAR10(published, train=split == "train")
    assert images.dtype == torch.uint8 and images.shape == (count, *SHAPE) and labels.dtype == torch.int64
    assert torch.equal(images, torch.from_numpy(theirs.data).permute(0, 3, 1, 2))
    assert labels.tolist() == theirs.targets


def test_images_of_the_right_shape_are_taken_whole_as_they_would_be_one_by_one(published, monkeypatch):
    class OneByOne(SmallCIFAR10):
        def __init__(self, *settings, **more_settings):
            super().__init__(*settings, **more_settings)
            self.data = list(self.data)

    expected = reader(published, dataset=OneByOne).read(published, "test")
    monkeypatch.setattr(vision, "fit", lambda *_: pytest.fail("one by one"))
    images, labels = reader(published).read(published, "test")
    assert torch.equal(images, expected[0]) and torch.equal(labels, expected[1]) and images.is_contiguous()


def test_files_are_checked_once_by_who_fetches_and_reads_them(published, monkeypatch):
    checked, hash_ = [], hashlib.new
    monkeypatch.setattr(fetch.hashlib, "new", lambda *args, **how: checked.append(how) or hash_(*args, **how))
    there = reader(published)
    there.fetch(published)
    for split in "train", "test":
        there.read(published, split)
    assert checked == [{"usedforsecurity": False}] * len(NAMES)
    other = reader(published)  # as another process of several, which fetches nothing
    other.read(published, "train")
    assert len(checked) == 2 * len(NAMES)


def test_rows_of_a_batch_are_red_then_green_then_blue(published):
    raw = pickle.loads((published / FOLDER / "test_batch").read_bytes())
    images, _ = reader(published).read(published, "test")
    assert torch.equal(images.flatten(1), torch.from_numpy(raw["data"]))


def test_images_are_resized_and_made_grey_where_another_shape_is_asked_for(published):
    images, _ = reader(published, image_shape=(1, 16, 12)).read(published, "test")
    whole, _ = reader(published).read(published, "test")
    assert images.shape == (40, 1, 16, 12)
    luma = (whole.double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1).mean(dim=(1, 2))
    assert (images.double().mean(dim=(1, 2, 3)) - luma).abs().max() < 4
    with pytest.raises(
        ValueError, match=r"^image_shape=\[2, 32, 32\].* 1 channel .* 3 .*try data\.image_shape=\[3,32,32\]"
    ):
        reader(published, image_shape=(2, 32, 32))


def test_config_has_the_checksums_that_torchvision_has(compose):
    config = compose("data=cifar10", small=False).data.reader
    known = CIFAR10.train_list + CIFAR10.test_list + [[CIFAR10.meta["filename"], CIFAR10.meta["md5"]]]
    assert dict(config.checksums) == {f"{CIFAR10.base_folder}/{name}": md5 for name, md5 in known}
    assert list(config.urls) == [CIFAR10.url]


# --- What is damaged or hostile ------------------------------------------------------------------------------


class Hostile:
    def __reduce__(self):
        return (open, ("/nowhere/at/all", "w"))  # would be an OSError


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-5], id="truncated"),
        pytest.param(lambda content: content[:-1] + b"?", id="one byte"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: pickle.dumps(Hostile()), id="hostile"),
    ],
)
@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_damaged_file_is_refused_by_name_and_never_unpickled(published, monkeypatch, name, damage):
    there = reader(published)
    path = published / FOLDER / name
    path.write_bytes(damage(path.read_bytes()))
    (published / ARCHIVE).unlink()
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(ValueError, match=f"holds no intact {FOLDER}/{name}"):
        there.read(published, "train")
    with pytest.raises(fetch.DataError, match=rf"{FOLDER}/{name} \(damaged\)"):
        there.fetch(published)


def test_what_torchvision_itself_refuses_is_one_line(published):
    """Its own class of CIFAR-10 knows other checksums than these files have."""
    with pytest.raises(ValueError, match=r"data.root=.*: torchvision cannot read the train split: Dataset not found"):
        reader(published, dataset=CIFAR10).read(published, "train")


# --- Fetching ------------------------------------------------------------------------------------------------


def test_archive_in_the_folder_is_unpacked(published, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / ARCHIVE).write_bytes((published / ARCHIVE).read_bytes())
    reader(published, f"http://mirror.invalid/{ARCHIVE}").fetch(root)
    assert_complete(root, published)


def test_archive_is_fetched_once_and_not_kept(published, tmp_path, serve, caplog):  # noqa: F811
    url, asked = serve(published)
    with caplog.at_level("INFO", fetch.__name__):
        reader(published, url + ARCHIVE).fetch(tmp_path / "root")
    assert_complete(tmp_path / "root", published)
    assert asked == {ARCHIVE: 1}
    assert caplog.messages == [
        f"Fetching {url}{ARCHIVE}", f"Fetched 7 files from {url}{ARCHIVE} into {tmp_path / 'root'}"
    ]  # fmt: skip


def test_files_that_are_no_archive_are_fetched_where_they_are_missing(published, tmp_path, serve):  # noqa: F811
    url, asked = serve(published / FOLDER)
    checksums = {name: cifar_files.checksums(published)[f"{FOLDER}/{name}"] for name in NAMES}
    root = tmp_path / "root"
    root.mkdir()
    (root / NAMES[0]).write_bytes((published / FOLDER / NAMES[0]).read_bytes())
    VisionReader(SmallCIFAR10, SHAPE, checksums, [url + name for name in NAMES], {}, {}).fetch(root)
    assert asked == dict.fromkeys(NAMES[1:], 1)


def test_no_network_and_no_write_when_the_files_are_there(published, monkeypatch):
    monkeypatch.setattr(fetch, "_open", lambda url: pytest.fail("touched the network"))
    monkeypatch.setattr(fetch, "FileLock", lambda path: pytest.fail("touched the disk"))
    reader(published, "http://mirror.invalid/x.tar.gz").fetch(published)


def test_folder_that_cannot_be_written_is_named_by_its_key(published, tmp_path, serve):  # noqa: F811
    url, _ = serve(published)
    root = tmp_path / "root"
    root.mkdir()
    (root / FOLDER).write_text("not a folder")  # chmod would not stop root, this does
    with pytest.raises(fetch.DataError, match=rf"^data.root={root}: the data set .* cannot be written"):
        reader(published, url + ARCHIVE).fetch(root)


def test_archive_that_is_cut_short_is_not_believed(published, tmp_path, serve):  # noqa: F811
    cut = (published / ARCHIVE).read_bytes()[:-1000]
    (published / ARCHIVE).write_bytes(cut)
    url, _ = serve(published)
    with pytest.raises(fetch.DataError, match=r"; put them there, or set data.root to the folder that holds them$"):
        reader(published, url + ARCHIVE).fetch(tmp_path / "root")


def test_without_network_or_files_the_run_is_told_what_to_put_where_in_one_line(published, tmp_path, caplog):
    dead = dead_mirror() + ARCHIVE
    with caplog.at_level("DEBUG"), pytest.raises(ValueError) as caught:
        reader(published, dead).fetch(tmp_path / "root")
    message = str(caught.value)
    assert message.startswith(f"data.root={tmp_path / 'root'} lacks ") and "refused" in message
    assert "\n" not in message and len(message.replace(str(tmp_path), "")) < 400
    assert f"{tmp_path / 'root' / ARCHIVE}: it is not there" in message  # it may be put there whole
    for name, md5 in cifar_files.checksums(published).items():
        assert f"{name}  MD5 {md5}  (missing)" in caplog.text


def test_mirror_that_never_answers_is_waited_for_once(published, tmp_path, silent, tried):  # noqa: F811
    with pytest.raises(fetch.DataError):
        reader(published, silent + ARCHIVE).fetch(tmp_path / "root")
    assert tried == [silent + ARCHIVE]
