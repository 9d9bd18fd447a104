"""Pictures of samples, epoch by epoch, and an animation of them."""

import logging
from pathlib import Path

import torch
from lightning import Callback, Trainer
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from gan_lightning import images
from gan_lightning.conditioning import spread_evenly
from gan_lightning.files import written_whole
from gan_lightning.gan import GAN
from gan_lightning.noise import slerp
from gan_lightning.trackers.tracker import show_picture

log = logging.getLogger(__name__)

NOISE_SEED = 0  # the same noise in every run, so that runs can be compared picture by picture
MAX_FRAMES = 100  # of the animation; more only make the file larger


class Pictures(Callback):
    """Samples from fixed noise, before training and after every epoch, in `samples/` and TensorBoard.

    With a conditional generator: a row for each class, and one z in each column.

    Args:
        num_images: images in a picture; with a row for each class, nrow of each class instead.
        nrow: images in a row.
        every_n_epochs: epochs between pictures.
    """

    def __init__(self, num_images: int = 64, nrow: int = 8, every_n_epochs: int = 1) -> None:
        for key, value in {"num_images": num_images, "nrow": nrow, "every_n_epochs": every_n_epochs}.items():
            if value < 1:
                raise ValueError(f"{key}={value} must be 1 or more")
        self.num_images = num_images
        self.nrow = nrow
        self.every_n_epochs = every_n_epochs

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        if not trainer.is_global_zero:
            return
        self.folder = Path(trainer.default_root_dir) / "samples"
        self.folder.mkdir(parents=True, exist_ok=True)
        if trainer.datamodule is not None:
            shown = trainer.datamodule.images()
            shown = shown[
                spread_evenly(len(shown), self.num_images)
            ]  # the first images of a folder are all of one class
            real = images.grid(images.normalize(shown), self.nrow)
            self._keep(real, "real.png")
        if gan.global_step == 0:  # a resumed run has written these
            if trainer.datamodule is not None:
                show_picture(trainer, "samples/real", real)
            self._take(trainer, gan, 0)

    def on_train_epoch_end(self, trainer: Trainer, gan: GAN) -> None:
        epoch = trainer.current_epoch + 1
        last = trainer.should_stop or epoch == trainer.max_epochs or gan.global_step == trainer.max_steps
        if trainer.is_global_zero and (last or epoch % self.every_n_epochs == 0):
            self._take(trainer, gan, epoch)

    def on_train_end(self, trainer: Trainer, gan: GAN) -> None:
        if trainer.is_global_zero:
            files = sorted(self.folder.glob("epoch_*.png"))
            step = max(1, -(-len(files) // MAX_FRAMES))
            frames = [frame for file in files[::-step] if (frame := read_frame(file)) is not None]
            alike = [frame for frame in frames if frame.shape == frames[0].shape]  # the last frame is always in
            if len(alike) < len(frames):
                log.warning(
                    "%s/training.gif leaves out %d pictures of another size; keep callbacks.pictures.num_images and "
                    "nrow when a run is resumed", self.folder, len(frames) - len(alike),
                )  # fmt: skip
            if alike:
                with written_whole(self.folder / "training.gif") as part:
                    images.save_gif(alike[::-1], part)

    def _take(self, trainer: Trainer, gan: GAN, epoch: int) -> None:
        noise = torch.Generator().manual_seed(NOISE_SEED)
        num = self.nrow if gan.conditioning.num_classes else self.num_images
        fixed = torch.randn(num, gan.latent_dim, generator=noise).to(gan.device)
        picture = images.grid(gan.generate(*gan.conditioning.rows(fixed)), self.nrow)
        self._keep(picture, f"epoch_{epoch:04d}.png")
        show_picture(trainer, "samples/fixed", picture)
        start, end = torch.randn(2, 8, gan.latent_dim, generator=noise).to(gan.device)
        path = slerp(start, end, steps=10)
        classes = gan.conditioning.in_turn(len(path))  # one a row
        walk = gan.generate(path.flatten(0, 1), classes if classes is None else classes.repeat_interleave(10))
        show_picture(trainer, "samples/interpolation", images.grid(walk, nrow=10))

    def _keep(self, picture: Tensor, name: str) -> None:
        with written_whole(self.folder / name) as part:  # half a picture would break the animation
            images.save_png(picture, part)


def read_frame(file: Path) -> Tensor | None:
    """A picture of an earlier epoch; None, with a warning, if the file cannot be read: the run must not end there."""
    try:
        with Image.open(file) as picture:
            return pil_to_tensor(picture)
    except Exception as error:  # Pillow raises many kinds
        log.warning("%s is no picture, and not in training.gif (%s)", file, type(error).__name__)
        return None
