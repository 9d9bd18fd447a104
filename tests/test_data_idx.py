import gzip

import idx_files
import pytest
import torch
from torchvision.datasets import MNIST
from torchvision.datasets.mnist import read_image_file

from gan_lightning.data.idx import FILES, IdxReader, parse


def test_parse_reads_what_torchvision_reads(tmp_path):
    idx_files.write(tmp_path)
    path = tmp_path / FILES["train_images"]
    images = parse(path.read_bytes(), path.name)
    assert images.dtype == torch.uint8
    torch.testing.assert_close(images, read_image_file(str(path)))


def test_truncated_file_is_named_with_expected_and_found_size():
    content = idx_files.encode(torch.zeros(3, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="x-images: its header announces 28 bytes, found 27"):
        parse(content[:-1], "x-images")


@pytest.mark.parametrize("content", [b"", b"<html>", b"\0\0\x0d\1\0\0\0\0"], ids=["empty", "html", "float"])
def test_file_of_another_kind_is_named(content):
    with pytest.raises(ValueError, match="x-images is not an IDX file of bytes"):
        parse(content, "x-images")


def test_reader_returns_images_with_a_channel_and_their_labels(tmp_path):
    idx_files.write(tmp_path, train=30, test=20, size=12)
    reader = IdxReader(MNIST, idx_files.sha256(tmp_path))
    for split, count in ("train", 30), ("test", 20):
        images, labels = reader.read(tmp_path, split)
        assert images.shape == (count, 1, 12, 12) and images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert labels.tolist() == [i % 10 for i in range(count)]


@pytest.mark.parametrize("folder", ["", "MNIST/raw"])
@pytest.mark.parametrize("zipped", [False, True])
def test_reader_accepts_torchvisions_folder_and_gz(tmp_path, folder, zipped):
    raw = tmp_path / folder
    idx_files.write(raw)
    reader = IdxReader(MNIST, idx_files.sha256(raw))
    if zipped:
        for name in FILES.values():
            (raw / f"{name}.gz").write_bytes(gzip.compress((raw / name).read_bytes()))
            (raw / name).unlink()
    reader.fetch(tmp_path)
    assert reader.read(tmp_path, "train")[0].shape == (512, 1, 28, 28)


def test_damaged_file_is_never_read(tmp_path):
    idx_files.write(tmp_path)
    reader = IdxReader(MNIST, idx_files.sha256(tmp_path))
    path = tmp_path / FILES["train_images"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # one bit
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no intact train-images-idx3-ubyte"):
        reader.read(tmp_path, "train")
    assert len(reader.read(tmp_path, "test")[0]) == 640
