"""The judge: a small classifier per data set. Scores are computed on the features of its last hidden layer.

Inception (Szegedy et al. 2015) was trained on colour photographs of 299x299 pixels, and its weights must be fetched. A
classifier of the data set's own classes knows what matters in images of 28x28, and its weights ship with this package.
Its scores are never called Inception's: every result carries the judge's name and hash.

Letters: N images, C channels, H height, W width, F features, K classes.
"""

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gan_lightning.files import cache_folder, expand, python
from gan_lightning.images import normalize
from gan_lightning.metrics.exact import exact_float32

JUDGES = Path(__file__).parent / "judges"  # shipped weights, and pins.json: their hashes and accuracies


class Extractor(Protocol):
    """Images -> (features, logits), for scores. The judge is an extractor, and so is `inception.Inception`."""

    name: str
    sha256: str  # of the weights; results and caches carry it
    classifies_data: bool  # are the logits' classes those of the data?
    test_accuracy: float  # share of the test split that is classified right; NaN: unknown
    class_shape: tuple[int, ...]  # (K,); for stacked images the classes of each channel, (K_1, ..., K_C)

    @property
    def device(self) -> torch.device: ...

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) float32 in [-1, 1] -> features (N, F) and logits (N, K), float32."""


class Judge(nn.Module):
    """Four learned layers from an image to F features, one more to the logits.

    Features are non-negative (after ReLU) and scaled so that E|f|^2 = F on the training split: KID's kernel
    (x.y / F + 1)^3 then weights its terms alike for every judge.

    Args:
        name: the data set it judges.
        image_shape: (C, H, W), H and W of 12 pixels or more.
        num_classes: K.
        width: F. 10,000 samples give 78 for each of 128 features, enough for their covariance.
        batch_norm: between the layers during training; it is folded into the weights of a finished judge.
    """

    classifies_data = True

    def __init__(
        self,
        name: str,
        image_shape: tuple[int, int, int],
        num_classes: int,
        width: int = 128,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if min(image_shape[1:]) < 12:
            raise ValueError(f"A judge needs images of 12x12 pixels or more, got image_shape={image_shape}.")
        self.name, self.image_shape, self.num_classes, self.width = name, image_shape, num_classes, width
        self.class_shape: tuple[int, ...] = (num_classes,)
        self.sha256 = ""  # of its file; set at the end of training
        self.test_accuracy = float("nan")
        self.recipe: dict[str, int | str] = {}  # seed, epochs and augment of its training, if known
        self.features = nn.Sequential(  # (N, C, H, W)
            block(image_shape[0], 32, 5, batch_norm, stride=2),  # (N, 32, H/2, W/2)
            block(32, 64, 3, batch_norm),
            nn.MaxPool2d(2),  # (N, 64, H/4, W/4)
            block(64, 96, 3, batch_norm),
            nn.AdaptiveMaxPool2d(3),  # (N, 96, 3, 3)
            nn.Flatten(),
            nn.Linear(96 * 9, width),
            nn.ReLU(),  # (N, F)
        )
        self.classify = nn.Linear(width, num_classes)

    @property
    def device(self) -> torch.device:
        return self.classify.weight.device

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) float32 in [-1, 1] -> features (N, F) and logits (N, K), float32."""
        check_shape(self, images)
        features = self.features(images)
        return features, self.classify(features)

    def fused(self) -> "Judge":
        """The same function without BatchNorm: each folded into the convolution before it."""
        with torch.random.fork_rng(devices=[]):  # building a judge draws random weights, which must not disturb a run
            judge = Judge(self.name, self.image_shape, self.num_classes, self.width)
        judge.load_state_dict(self.state_dict(), strict=False)  # the layers without BatchNorm
        for mine, theirs in zip(self.features, judge.features, strict=True):
            if isinstance(mine, nn.Sequential) and isinstance(theirs, nn.Sequential):
                convolution, norm, _ = mine.eval()
                assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
                theirs[0] = fuse_conv_bn_eval(convolution, norm)
        return judge.eval().requires_grad_(False)


class StackedJudge:
    """Judges stacks of one-channel images with the judge of one channel, see `data/stacked.py`.

    Features: those of all channels side by side. The classes of the channels are independent of each other:

    log p(k_1, ..., k_C | x) = sum_c log p(k_c | x_c),   of class K^(C-1) k_1 + ... + k_C

    Args:
        judge: of one channel, with F features and K classes.
        num_channels: C.

    Raises:
        ValueError: if the judge takes more than one channel.
    """

    classifies_data = True

    def __init__(self, judge: Judge, num_channels: int) -> None:
        if judge.image_shape[0] != 1:
            raise ValueError(
                f"judge={judge.name}: it takes images of shape {judge.image_shape}; "
                "stacks need the judge of a single channel, such as mnist"
            )
        self.judge = judge
        self.image_shape = (num_channels, *judge.image_shape[1:])
        self.class_shape: tuple[int, ...] = (judge.num_classes,) * num_channels
        self.name, self.sha256 = f"{judge.name}, channel by channel", judge.sha256
        self.test_accuracy = judge.test_accuracy  # of one channel

    @property
    def device(self) -> torch.device:
        return self.judge.device

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) float32 in [-1, 1] -> features (N, C * F) and logits (N, K^C), float32."""
        check_shape(self, images)
        features, logits = zip(*map(self.judge, images.split(1, dim=1)), strict=True)
        joint = torch.zeros(len(images), 1, device=images.device)
        for channel in logits:  # (N, K)
            joint = (joint.unsqueeze(2) + channel.log_softmax(dim=1).unsqueeze(1)).flatten(1)  # (N, K), (N, K^2), ...
        return torch.cat(features, dim=1), joint


def check_shape(judge: Judge | StackedJudge, images: Tensor) -> None:
    """Raises ValueError if the images (N, C, H, W) have another shape than the judge takes."""
    if images.shape[1:] != judge.image_shape:
        raise ValueError(
            f"The judge of {judge.name!r} takes images of shape {judge.image_shape}, "
            f"got {tuple(images.shape[1:])}; train one for this data set."
        )


def block(channels_in: int, channels_out: int, kernel: int, batch_norm: bool, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)
    norm = [nn.BatchNorm2d(channels_out)] if batch_norm else []
    return nn.Sequential(convolution, *norm, nn.ReLU())


@exact_float32()
def extract(extractor: Extractor, images: Tensor, batch_size: int = 100) -> tuple[Tensor, Tensor]:
    """Features and logits of many images, a batch at a time.

    Args:
        images: (N, C, H, W) uint8.
        batch_size: images at once; small, so that activations stay in the processor's cache.

    Returns:
        Features (N, F) and logits (N, K), float32 on the CPU; batch_size changes only rounding.
    """
    batches = [extractor(normalize(batch.to(extractor.device))) for batch in images.split(batch_size)]
    features, logits = zip(*batches, strict=True)
    return torch.cat(features).cpu(), torch.cat(logits).cpu()


def to_bytes(judge: Judge) -> bytes:
    """Weights and settings as the content of a safetensors file. Sets `judge.sha256` to its hash."""
    about = {
        "name": judge.name,
        "image_shape": judge.image_shape,
        "num_classes": judge.num_classes,
        "width": judge.width,
        "test_accuracy": judge.test_accuracy,
        **judge.recipe,
    }
    weights = {name: weight.contiguous() for name, weight in judge.state_dict().items()}
    content = safetensors.torch.save(weights, {"judge": json.dumps(about, sort_keys=True)})
    judge.sha256 = hashlib.sha256(content).hexdigest()
    return content


def save_judge(judge: Judge, path: Path) -> str:
    """Write a judge's file, and return its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_bytes(judge))
    return judge.sha256


def pins(folder: Path) -> dict[str, dict[str, Any]]:
    """Hash and test accuracy of the judges in a folder, by the names of their files; empty without a pins.json."""
    file = folder / "pins.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def load_stacked_judge(judge: str | Path, num_channels: int, folder: str | Path | None = None) -> StackedJudge:
    """A trained judge of one channel, ready to judge stacks of `num_channels`; otherwise as `load_judge`."""
    return StackedJudge(load_judge(judge, folder), num_channels)


def load_judge(judge: str | Path, folder: str | Path | None = None) -> Judge:
    """A trained judge, ready to judge.

    Args:
        judge: the name of a data set, whose judge is shipped (`mnist`) or lies in `folder`; or a .safetensors file.
        folder: where the judges are that you trained; None: where `train_judge` puts them.

    Raises:
        ValueError: if there is no judge for this data set, or its file is not the one in the pins.json beside it.
    """
    shipped = pins(JUDGES)
    path = expand(judge, "judge")
    if path.suffix != ".safetensors":
        own = folder or cache_folder("judges")
        path = JUDGES if str(judge) in shipped else expand(own, "folder")
        path /= f"{judge}.safetensors"
    if not path.is_file():
        raise ValueError(
            f"No judge for {str(judge)!r}: {path} does not exist. Shipped: {', '.join(sorted(shipped))}. "
            f"Train one: {python()} -m gan_lightning.train_judge data=<as here> "
            f"data.name={shlex.quote(Path(judge).stem)}"
        )
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    expected = pins(path.parent).get(path.stem, {}).get("sha256", sha256)  # a judge without a pin may have any hash
    if sha256 != expected:
        way_out = "install it again" if path.parent == JUDGES else "train it again"
        raise ValueError(f"{path} is damaged: its SHA-256 is {sha256[:16]}…, not {expected[:16]}…; {way_out}.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["judge"])
        with torch.random.fork_rng(devices=[]):
            loaded = Judge(about["name"], tuple(about["image_shape"]), about["num_classes"], about["width"])
        loaded.load_state_dict(safetensors.torch.load(content))
    except (safetensors.SafetensorError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is not a judge, or damaged ({error}); train it again.") from error
    loaded.sha256, loaded.test_accuracy = sha256, about["test_accuracy"]
    loaded.recipe = {key: about[key] for key in ("seed", "epochs", "augment") if key in about}
    loaded.to(memory_format=torch.channels_last)  # twice as fast on a CPU
    return loaded.eval().requires_grad_(False)
