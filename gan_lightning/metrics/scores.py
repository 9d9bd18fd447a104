"""Generated images -> scores, against a reference that is computed once, beside a control.

    reference = load_reference("mnist", train_images, test_images, load_judge("mnist"), cache=None)
    scores = score(images, reference)               # scores.values["fid"]
    control = reference.control(len(images))        # the same for test images: a perfect generator's scores

Letters: N samples, T training images, H held-out images, F features, K classes, D axes of the pixel space.
"""

import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from gan_lightning.files import written_whole
from gan_lightning.images import to_uint8
from gan_lightning.metrics.class_histogram import class_histogram
from gan_lightning.metrics.conditional_accuracy import conditional_accuracy
from gan_lightning.metrics.density_coverage import density_coverage
from gan_lightning.metrics.exact import exact_float32
from gan_lightning.metrics.fid import SAMPLES_PER_FEATURE, frechet_distance, moments
from gan_lightning.metrics.inception_score import inception_score
from gan_lightning.metrics.judge import Extractor, extract
from gan_lightning.metrics.kid import kid
from gan_lightning.metrics.memorisation import Nearness, PixelSpace, memorisation, nearness, pixel_space
from gan_lightning.metrics.modes import independent, modes
from gan_lightning.metrics.neighbours import MAX_SAMPLES, neighbours
from gan_lightning.metrics.precision_recall import precision_recall
from gan_lightning.metrics.variety import spread

logger = logging.getLogger(__name__)

FORMAT = 1  # of a cached reference; raise it with any change of its content
MOST_SAMPLES = 1_000_000  # of 28x28 pixels with 128 features: 4 GB


@dataclass
class Scores:
    """Scores, and what they mean."""

    values: dict[str, float]
    about: dict[str, str | int | float]  # judge, judge_sha256, judge_accuracy, num_samples, samples, reference
    class_counts: list[int]  # (K,) samples of each class; empty if the extractor does not know the data's classes
    classes: Tensor  # (N,) int64, the extractor's class of each sample
    nearness: Nearness  # the nearest training image of each sample

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        counts = {"class_counts": self.class_counts} if self.class_counts else {}
        return {**self.about, **self.values, **counts}


@dataclass
class Reference:
    """Features of real images: the training split to compare with, and the test split, held out as control.

    `load_reference` makes one.
    """

    name: str  # of the data set
    extractor: Extractor
    features: Tensor  # (T, F) float32
    mean: Tensor  # (F,) float64
    covariance: Tensor  # (F, F) float64
    class_counts: Tensor  # (K,) training images of each class, by the extractor
    pixels: PixelSpace
    training: Tensor  # (T, D) float32, training images in the pixel space
    held_out_features: Tensor  # (H, F) float32
    held_out_logits: Tensor  # (H, K) float32
    held_out: Nearness
    spread: float  # of the training images
    held_out_spread: float
    trial_of: int = 0  # images in the whole training split, if only some are used, to see that scoring runs; else 0
    held_out_labels: Tensor | None = None  # (H,) int64, for a conditional generator
    _controls: dict[int, Scores] = field(default_factory=dict, init=False)

    def check(self, num_samples: int, origin: str | None = None) -> None:
        """Refuse a number of samples that is too small for the features, before any sample is drawn.

        Warns if there are fewer images in the test split: the control is then scored on fewer.

        Args:
            origin: what the user typed, for the message.

        Raises:
            ValueError: if they are too few or too many, or the test split is too small to be the control.
        """
        origin = origin or f"num_samples={num_samples}"
        if self.trial_of:
            logger.warning("%s samples, against %d real images: this shows that scoring works; the values mean nothing",
                           origin, len(self.features))  # fmt: skip
            return
        width = self.features.shape[1]
        least, held_out = SAMPLES_PER_FEATURE * width, len(self.held_out_features)
        if num_samples < least:
            raise ValueError(
                f"{origin} samples are too few for the covariance of {width} features; give at least {least}"
            )
        if num_samples > MOST_SAMPLES:
            raise ValueError(f"{origin} is more than memory is planned for; give at most {MOST_SAMPLES}")
        if held_out < least:
            raise ValueError(
                f"the test split of {self.name} has {held_out} images, too few for a control on {width} features, "
                f"which takes {least}; train without scores: metrics=none"
            )
        if num_samples > held_out:
            logger.warning(
                "%s: the control is scored on the %d images that the test split of %s has; FID, precision, recall and "
                "coverage depend on how many there are", origin, held_out, self.name,
            )  # fmt: skip

    def control(self, num_samples: int) -> Scores:
        """Scores of held-out images as if they were generated: num_samples of them, or all if there are fewer."""
        num_samples = min(num_samples, len(self.held_out_features))
        if num_samples not in self._controls:
            some = choose(len(self.held_out_features), num_samples)
            self._controls[num_samples] = compare(
                self.held_out_features[some],
                self.held_out_logits[some],
                Nearness(*(values[some] for values in self.held_out)),
                self.held_out_spread,
                self,
                "test split",
                None if self.held_out_labels is None else self.held_out_labels[some],
            )
        return self._controls[num_samples]


@exact_float32()
def score(images: Tensor, reference: Reference, labels: Tensor | None = None) -> Scores:
    """All scores of generated images. With several ranks gather the images first: scores cannot be averaged.

    Args:
        images: (N, C, H, W), uint8, or float in [-1, 1], which is rounded to uint8.
        labels: (N,) int64, the classes asked for, from a conditional generator.

    Raises:
        ValueError: if there are too few samples for the width of the features, or some are not finite.
    """
    images = images.detach().cpu()
    if images.is_floating_point():
        if not images.isfinite().all():
            raise ValueError("Some generated images are NaN or infinite; there is nothing to score.")
        images = to_uint8(images)
    features, logits = extract(reference.extractor, images)
    near = nearness(reference.pixels.locate(images), reference.training)
    return compare(features, logits, near, spread(images), reference, "generated", labels)


@exact_float32()
def compare(
    features: Tensor,
    logits: Tensor,
    near: Nearness,
    own_spread: float,
    reference: Reference,
    samples: str,
    labels: Tensor | None = None,
) -> Scores:
    """Scores of samples with features (N, F) and logits (N, K), near to some of the training images."""
    real = reference.features
    # Equal numbers, because precision, recall and coverage depend on them.
    num_neighbours = min(len(features), len(real), MAX_SAMPLES)
    some_real, some_fake = (all_[choose(len(all_), num_neighbours)] for all_ in (real, features))
    among = neighbours(some_real, some_fake)
    values = {
        "fid": frechet_distance(reference.mean, reference.covariance, *moments(features, bool(reference.trial_of)))
    }
    values["kid"], values["kid_stderr"] = kid(real, features)
    values["precision"], values["recall"] = precision_recall(among)
    values["density"], values["coverage"] = density_coverage(among)
    values["inception_score"] = inception_score(logits)
    class_counts = []
    if reference.extractor.classifies_data:
        histogram = class_histogram(logits, reference.class_counts)
        class_counts = histogram.counts
        values["class_kl"], values["classes_missing"] = histogram.kl, float(histogram.missing)
        values["class_excess"], values["sure_share"] = histogram.excess, histogram.sure_share
        if len(reference.extractor.class_shape) > 1:
            found = modes(torch.tensor(class_counts), reference.class_counts)
            values["modes"], values["modes_kl"], values["modes_kl_data"] = float(found.found), found.kl, found.kl_data
        if labels is not None:
            values["conditional_accuracy"] = conditional_accuracy(logits, labels)
    values["variety"] = own_spread / reference.spread
    values["memorised"], values["nearest_ratio"] = memorisation(near, reference.held_out)
    of = f"of {reference.trial_of:,} " if reference.trial_of else ""
    about: dict[str, str | int | float] = {
        "samples": samples,
        "num_samples": len(features),
        "reference": f"{reference.name}, training split, {len(real):,} {of}images",
        "judge": reference.extractor.name,
        "judge_sha256": reference.extractor.sha256,
    }
    if reference.extractor.classifies_data:
        about["judge_accuracy"] = reference.extractor.test_accuracy
    return Scores(values, about, class_counts, logits.argmax(dim=1), near)


def choose(total: int, number: int) -> Tensor:
    """Indices (number,) of that many out of `total`, always the same ones."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(0))[:number]


def load_reference(
    name: str,
    images: Tensor,
    held_out: Tensor,
    extractor: Extractor,
    cache: str | Path | None,
    *,
    held_out_labels: Tensor | None = None,
    trial_of: int = 0,
) -> Reference:
    """The reference for a data set: from the cache, else computed (a minute) and cached if possible.

    Args:
        name: of the data set, for the results.
        images: the training split, (T, C, H, W) uint8.  held_out: the test split, (H, C, H, W) uint8.
        cache: folder. It may be read-only; a damaged or outdated file in it is made again. None: no cache.
        held_out_labels: (H,) int64, for the control of a conditional generator.
        trial_of: number of images in the whole training split, if `images` are only some of it. Nothing is cached then.
    """
    path = None if cache is None or trial_of else cached_file(Path(cache), name, images, held_out, extractor)
    tensors = read(path) if path else None
    if tensors is None:
        often = "to try them" if trial_of else "once, a minute or two"
        logger.info("features of %s real images of %s: %s", f"{len(images) + len(held_out):,}", name, often)
        tensors = compute(images, held_out, extractor, bool(trial_of))
        if path:
            write(tensors, path)
    return Reference(
        name=name,
        extractor=extractor,
        pixels=PixelSpace(*(tensors.pop(f"pixels.{field}") for field in PixelSpace._fields)),
        held_out=Nearness(*(tensors.pop(f"held_out.{field}") for field in Nearness._fields)),
        spread=spread(images),
        held_out_spread=spread(held_out),
        held_out_labels=held_out_labels,
        trial_of=trial_of,
        **tensors,
    )


def cached_file(folder: Path, name: str, images: Tensor, held_out: Tensor, extractor: Extractor) -> Path:
    """The file of a reference, by the hashes of its images and of the extractor's weights, and by FORMAT."""
    key = hashlib.sha256(f"{FORMAT} {extractor.sha256}".encode())
    for split in (images, held_out):
        key.update(str(tuple(split.shape)).encode())
        key.update(split.contiguous().numpy().tobytes())
    return folder / f"{name[:40]}-{key.hexdigest()[:32]}.reference"


@exact_float32()
def compute(images: Tensor, held_out: Tensor, extractor: Extractor, trial: bool = False) -> dict[str, Tensor]:
    """The tensors of a Reference, by the names of its fields."""
    features, logits = extract(extractor, images)
    mean, covariance = moments(features, trial)
    held_out_features, held_out_logits = extract(extractor, held_out)
    pixels = pixel_space(images)
    training = pixels.locate(images)
    near = nearness(pixels.locate(held_out), training)
    tensors = {
        "features": features,
        "mean": mean,
        "covariance": covariance,
        "class_counts": independent(logits.argmax(dim=1).bincount(minlength=logits.shape[1]), extractor.class_shape),
        "training": training,
        "held_out_features": held_out_features,
        "held_out_logits": held_out_logits,
        **{f"pixels.{field}": tensor for field, tensor in pixels._asdict().items()},
        **{f"held_out.{field}": tensor for field, tensor in near._asdict().items()},
    }
    return {name: tensor.contiguous() for name, tensor in tensors.items()}  # as safetensors wants them


def read(path: Path) -> dict[str, Tensor] | None:
    """Tensors from a file made by `write`; None if it is absent or damaged."""
    try:
        content = path.expanduser().read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: the user has no home folder
        return None
    content, digest = content[:-32], content[-32:]
    if hashlib.sha256(content).digest() != digest:
        logger.info("%s is damaged; computing it again", path)
        return None
    return safetensors.torch.load(content)


def write(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors and their SHA-256. A run goes on without a cache, so an error is only logged."""
    content = safetensors.torch.save(tensors)
    try:
        with written_whole(path.expanduser(), several_writers=True) as part:
            part.write_bytes(content + hashlib.sha256(content).digest())
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: the user has no home folder
        logger.info("reference not cached: %s", error)
