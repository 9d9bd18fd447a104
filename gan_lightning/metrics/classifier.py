"""Train a small classifier: the judge, and the one of train-on-synthetic; some minutes on one CPU core."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_lightning.images import normalize
from gan_lightning.metrics.judge import Judge, extract, to_bytes


def train_classifier(
    images: Tensor,
    labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    *,
    name: str,
    seed: int = 0,
    epochs: int = 12,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
    width: int = 128,
    distortion: str = "affine",
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = lambda line: None,
) -> Judge:
    """Train a classifier: cross-entropy, AdamW, one cycle of the learning rate, images moved a little.

    The test split is used only after training, for the accuracy that the judge carries. (That accuracy is a little too
    good where it has chosen the recipe, as with Fashion-MNIST's `shift`.) The same seed gives the same judge on the
    same machine and number of threads.

    Args:
        images: (N, C, H, W) uint8, N >= batch_size.  labels: (N,) int64 in [0, K).  Likewise the test split.
        name: of the data set.
        epochs: passes over `images`.
        learning_rate: the peak, after a quarter of the training.
        distortion: `affine` for drawings, see `move_a_little`; `shift` for photographs, whose texture interpolation
            would blur, see `shift_and_mirror`.
        report: called with a line for people after each epoch.
    """
    if len(images) < batch_size:
        raise ValueError(f"{len(images)} images are too few to train a judge; give at least {batch_size}.")
    if distortion not in DISTORTIONS:
        raise ValueError(f"distortion={distortion} must be one of {', '.join(DISTORTIONS)}")
    device = torch.device(device)
    num_classes = int(labels.max()) + 1
    images, labels = images.to(device), labels.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)  # initial weights and dropout
        judge = Judge(name, shape, num_classes, width, batch_norm=True).to(device)
        judge.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
        steps = len(images) // batch_size * epochs
        optimizer = torch.optim.AdamW(judge.parameters(), lr=learning_rate, weight_decay=0.05)
        steps = max(steps, 8)  # with fewer, a quarter of the cycle is no step
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.25)
        for epoch in range(epochs):
            order = torch.randperm(len(images), generator=generator, device=device)
            total = torch.zeros((), device=device)
            for batch in order.split(batch_size)[: len(images) // batch_size]:
                inputs = DISTORTIONS[distortion](normalize(images[batch]), generator).to(
                    memory_format=torch.channels_last
                )
                features = judge.features(inputs)
                logits = judge.classify(F.dropout(features, 0.3))  # spreads each class over many features
                loss = F.cross_entropy(logits, labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.detach()
            report(f"epoch {epoch + 1}/{epochs}: loss {total.item() * batch_size / len(images):.4f}")
    judge = scaled(judge.to(memory_format=torch.contiguous_format).fused(), images)
    judge.to(memory_format=torch.channels_last)
    judge.test_accuracy = accuracy(judge, test_images, test_labels)
    judge.recipe = {"seed": seed, "epochs": epochs, "augment": distortion}  # `augment` in the files of judges
    to_bytes(judge)  # sets the hash, which scores carry
    return judge


def move_a_little(
    images: Tensor, generator: torch.Generator, rotation: float = 10.0, shift: float = 2.0, zoom: float = 0.1
) -> Tensor:
    """Rotate, shift and zoom each image by its own random amounts; edges repeat outwards.

    Args:
        images: (N, C, H, W) float.
        rotation: degrees, at most, either way.  shift: pixels.  zoom: share of the size.
    """

    def uniform(limit: float) -> Tensor:
        return (torch.rand(len(images), generator=generator, device=images.device) * 2 - 1) * limit

    angle, scale = uniform(math.radians(rotation)), 1 + uniform(zoom)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    right, down = (
        uniform(2 * shift / images.shape[3]),
        uniform(2 * shift / images.shape[2]),
    )  # grid is [-1, 1]
    theta = torch.stack([cos, -sin, right, sin, cos, down], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def shift_and_mirror(images: Tensor, generator: torch.Generator, shift: int = 1) -> Tensor:
    """Shift each image by whole pixels, and mirror every other one left to right; edges repeat outwards.

    Args:
        images: (N, C, H, W) float.
        shift: pixels, at most, either way.
    """
    num, _, height, width = images.shape
    device = images.device
    padded = F.pad(images, (shift,) * 4, mode="replicate")
    down, right = torch.randint(0, 2 * shift + 1, (num, 2), generator=generator, device=device).T
    rows = down[:, None] + torch.arange(height, device=device)  # (N, H)
    columns = right[:, None] + torch.arange(width, device=device)  # (N, W)
    mirrored = torch.rand(num, generator=generator, device=device) < 0.5
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    which = torch.arange(num, device=device)[:, None, None]
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


DISTORTIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "affine": move_a_little,
    "shift": shift_and_mirror,
}


@torch.no_grad()
def scaled(judge: Judge, images: Tensor) -> Judge:
    """The same judge with E|f|^2 = F on these images, its logits unchanged."""
    features, _ = extract(judge, images)
    scale = features.double().square().mean().rsqrt().item()
    last = judge.features[-2]
    assert isinstance(last, torch.nn.Linear)
    last.weight.mul_(scale)  # relu(s x) = s relu(x)
    assert last.bias is not None
    last.bias.mul_(scale)
    judge.classify.weight.div_(scale)
    return judge


def accuracy(judge: Judge, images: Tensor, labels: Tensor) -> float:
    """Share of images (N, C, H, W) uint8 whose most probable class is their label (N,)."""
    _, logits = extract(judge, images)
    return (logits.argmax(dim=1) == labels.cpu()).double().mean().item()
