from itertools import chain
from pathlib import Path

import idx_files
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from torchvision.datasets import MNIST

from gan_lightning.data import ImageDataModule
from gan_lightning.data.idx import IdxReader
from gan_lightning.data.module import BatchLoader

CONF = Path(__file__).parents[1] / "conf"


class FakeReader:
    """Image i has the label i and its pixels, so that a batch tells which rows it holds."""

    def __init__(self, num_images=80, shape=(1, 2, 2)):
        self.num_images, self.shape = num_images, shape
        self.calls = []

    def fetch(self, root):
        self.calls.append("fetch")

    def read(self, root, split):
        self.calls.append(split)
        labels = torch.arange(self.num_images)
        return labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, *self.shape).contiguous(), labels


class SaveAt(Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


class Recorder(LightningModule):
    """Trains nothing; keeps the labels of each batch it is given."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.batches = []
        self.epochs = []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch[1].tolist())
        self.epochs.append(self.current_epoch)
        self.optimizers().step()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def loader(num_images=80, **settings):
    images, labels = FakeReader(num_images).read(None, "train")
    return BatchLoader(images, labels, **({"batch_size": 8} | settings))


def rows(batches):
    return [labels.tolist() for _, labels in batches]


def module(tmp_path, reader=None, **settings):
    settings = {"image_shape": (1, 2, 2), "batch_size": 8} | settings
    return ImageDataModule(tmp_path, reader or FakeReader(), **settings)


def quiet_trainer(tmp_path, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(default_root_dir=tmp_path, accelerator="cpu", **quiet, **settings)


def fit(tmp_path, data, callbacks=(), ckpt_path=None, **settings):
    recorder = Recorder()
    trainer = quiet_trainer(tmp_path, callbacks=list(callbacks), enable_checkpointing=False, **settings)
    trainer.fit(recorder, data, ckpt_path=ckpt_path)
    return recorder


# The images of an epoch


def test_epoch_shows_each_image_once_and_the_next_in_another_order():
    batches = loader()
    first, second = rows(batches), rows(batches)
    assert len(first) == len(batches) == 10
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(80))
    assert first != second


def test_images_stay_with_their_labels():
    for images, labels in loader():
        assert images.dtype == torch.uint8 and images.shape == (8, 1, 2, 2)
        assert (images == labels.view(-1, 1, 1, 1)).all()


def test_last_short_batch_is_left_out():
    assert [len(batch) for batch in rows(loader(num_images=30))] == [8, 8, 8]


def test_replacement_draws_some_images_again():
    drawn = list(chain(*rows(loader(replacement=True))))
    assert len(drawn) == 80 and set(drawn) < set(range(80))
    assert rows(loader(replacement=True, seed=1)) != rows(loader(replacement=True, seed=2))


# Under Lightning's Trainer


def test_limited_epochs_are_all_of_the_same_length(tmp_path):
    recorder = fit(tmp_path, module(tmp_path), max_epochs=3, limit_train_batches=7)
    assert recorder.epochs == [0] * 7 + [1] * 7 + [2] * 7
    assert recorder.batches == (rows(batches := loader()) + rows(batches) + rows(batches))[:21]


def test_trainer_gives_normalised_images(tmp_path):
    seen = []

    class Module(Recorder):
        def training_step(self, batch, batch_idx):
            seen.append(batch)
            super().training_step(batch, batch_idx)

    quiet_trainer(tmp_path, max_steps=1, enable_checkpointing=False).fit(Module(), module(tmp_path))
    images, labels = seen[0]
    assert images.dtype == torch.float32
    torch.testing.assert_close(images[:, 0, 0, 0], labels / 127.5 - 1)


def test_validation_batches_pass_unchanged(tmp_path):
    class Counts(ImageDataModule):
        def val_dataloader(self):
            return range(16, 17)  # one batch: how many samples to draw

    class Module(Recorder):
        def validation_step(self, batch, batch_idx):
            assert batch == 16

    quiet_trainer(tmp_path).validate(Module(), Counts(tmp_path, FakeReader(), (1, 2, 2)), verbose=False)


# Outside of training


def test_splits_are_read_when_asked_for_and_once(tmp_path):
    reader = FakeReader()
    data = module(tmp_path, reader)
    data.prepare_data()
    data.setup()
    assert reader.calls == ["fetch"]
    assert data.images() is data.images()
    assert data.labels().tolist() == list(range(80))
    assert reader.calls == ["fetch", "train"]
    data.images("test")
    assert reader.calls == ["fetch", "train", "test"]


# What people get wrong


@pytest.mark.parametrize("batch_size", [0, -4, 2.5, True])
def test_batch_size_that_is_no_count_is_refused(tmp_path, batch_size):
    with pytest.raises(ValueError, match=rf"^batch_size={batch_size} must be .*; try 128"):
        module(tmp_path, batch_size=batch_size)


@pytest.mark.parametrize("image_shape", [(28, 28), (0, 28, 28), (1, 28, 28.5)])
def test_image_shape_that_is_none_is_refused(tmp_path, image_shape):
    with pytest.raises(ValueError, match=r"^image_shape=\[.*\] must be .*; try \[1,28,28\]"):
        module(tmp_path, image_shape=image_shape)


def test_image_shape_of_other_images_is_refused(tmp_path):
    data = module(tmp_path, FakeReader(shape=(3, 4, 4)))
    with pytest.raises(ValueError, match=r"data.image_shape=\[1, 2, 2\] is not the shape .*; try \[3,4,4\]"):
        data.setup("fit")


def test_batch_size_above_the_data_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data.batch_size=81 is larger than the 80 images .*; try 80"):
        module(tmp_path, batch_size=81).setup("fit")


class Devices:
    """What the data module asks of a Trainer."""

    def __init__(self, num_devices, num_nodes=1):
        self.num_devices, self.num_nodes, self.world_size = num_devices, num_nodes, num_devices * num_nodes


@pytest.mark.parametrize(
    ("batch_size", "devices", "message"),
    [
        (50, Devices(3), r"data.batch_size=50 must be divisible by trainer.devices=3; try 48"),
        (2, Devices(3), r"data.batch_size=2 must be divisible by trainer.devices=3; try 3"),
        (50, Devices(2, 2), r"divisible by trainer.devices=2 times trainer.num_nodes=2; try 48"),
    ],
)
def test_batch_size_that_the_devices_cannot_share_is_refused(tmp_path, batch_size, devices, message):
    data = module(tmp_path, batch_size=batch_size)
    data.trainer = devices
    with pytest.raises(ValueError, match=message):
        data.setup("fit")


# A data set from memory

GREY = np.arange(4 * 6 * 5, dtype=np.uint8).reshape(4, 6, 5)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "images",
    [GREY, GREY[:, None], torch.from_numpy(GREY), read_only(GREY), np.asfortranarray(GREY), GREY[::-1][::-1]],
    ids=["array of grey", "array", "tensor of grey", "read-only", "other order", "backwards"],
)
@pytest.mark.parametrize("labels", [None, [0, 1, 0, 1], np.array([0, 1, 0, 1], "int32"), torch.tensor([0, 1, 0, 1])])
def test_images_and_labels_from_memory_are_taken_in_every_common_form(images, labels):
    data = ImageDataModule.from_tensors(images, labels, num_classes=0 if labels is None else 2, batch_size=2)
    assert data.images().shape == (4, 1, 6, 5) and data.images().dtype == torch.uint8
    assert (data.images()[:, 0].numpy() == GREY).all()
    assert data.labels().tolist() == ([0, 0, 0, 0] if labels is None else [0, 1, 0, 1])


@pytest.mark.parametrize(
    ("images", "way_out"),
    [
        (GREY / 255, r"float64; of numbers in \[0, 1\]: \(255 \* images\)\.round\(\)\.to\(torch\.uint8\)"),
        (torch.zeros(4, 1, 6, 5), "float32; of numbers in"),
        (np.zeros((4, 6, 5, 3), np.uint8), r"channels come first: images\.permute\(0, 3, 1, 2\)"),
        (GREY[0], r"must be \(N, C, H, W\) uint8, not \(6, 5\)"),
        (GREY[:0], r"not \(0, 1, 6, 5\)"),
        (["a.png"], "tensor or a NumPy array of numbers"),
    ],
    ids=["floats", "tensor of floats", "channels last", "one image", "none", "names"],
)
def test_images_from_memory_of_another_form_are_refused_with_the_way_out(images, way_out):
    with pytest.raises(ValueError, match=way_out):
        ImageDataModule.from_tensors(images)


# The real files and configs


def compose_data(name, *overrides):
    """conf/data/<name>.yaml, beside the `seed` of the root config."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose(overrides=["+seed=7", f"+data={name}", *overrides]).data)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_config_builds_the_module_and_its_keys_reach_it(tmp_path, name):
    files = idx_files.write(tmp_path / "files", train=40, test=20)
    data = compose_data(name, *files, "data.batch_size=20", "data.replacement=true")
    data.prepare_data()
    data.setup("fit")
    assert (data.batch_size, data.replacement, data.seed, data.image_shape) == (20, True, 7, (1, 28, 28))
    assert data.images().shape == (40, 1, 28, 28)
    assert len(data.labels("test")) == 20
    assert len(data.train_dataloader()) == 2


def test_data_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_LIGHTNING_DATA", str(tmp_path))
    assert compose_data("mnist").root == tmp_path / "mnist"
    monkeypatch.delenv("GAN_LIGHTNING_DATA")
    assert compose_data("fashion_mnist").root == Path.home() / ".cache/gan_lightning/fashion_mnist"


def test_parts_work_without_hydra(tmp_path):
    idx_files.write(tmp_path)
    data = ImageDataModule(tmp_path, IdxReader(MNIST, idx_files.sha256(tmp_path)), (1, 28, 28))
    recorder = fit(tmp_path, data, max_steps=2)
    assert [len(batch) for batch in recorder.batches] == [128, 128]
