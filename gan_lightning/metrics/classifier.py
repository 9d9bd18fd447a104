"""Train a small classifier: the judge, and the one of train-on-synthetic; some minutes on one CPU core."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_lightning.images import normalize
from gan_lightning.metrics.judge import Judge, extract, to_bytes

PEAK_RATE = 3e-3  # learning rate after a quarter of the training


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
    width: int = 128,
    distortion: str = "affine",
    device: torch.device | str = "cpu",
    report: Callable[[str], None] = lambda line: None,
) -> Judge:
    """Train a classifier: cross-entropy, AdamW, one cycle of the learning rate, images moved a little.

    Args:
        images: (N, C, H, W) uint8, N >= batch_size.  labels: (N,) int64 in [0, K).
        test_images, test_labels: likewise; used after training only, for the accuracy that the judge carries.
        distortion: `affine` for drawings; `shift` for photographs, whose texture interpolation would blur.
        report: called with a line for people after each epoch.
    """
    if len(images) < batch_size:
        raise ValueError(f"{len(images)} images are too few to train a judge; give at least {batch_size}.")
    if distortion not in DISTORTIONS:
        raise ValueError(f"distortion={distortion} must be one of {', '.join(DISTORTIONS)}")
    images, labels = images.to(device), labels.to(device)
    generator = torch.Generator(images.device).manual_seed(seed)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        torch.manual_seed(seed)  # initial weights and dropout
        judge = Judge(name, shape, int(labels.max()) + 1, width, batch_norm=True).to(device)
        judge.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
        optimizer = torch.optim.AdamW(judge.parameters(), lr=PEAK_RATE, weight_decay=0.05)
        steps = max(len(images) // batch_size * epochs, 8)  # with fewer, a quarter of the cycle is no step
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.25)
        for epoch in range(epochs):
            order = torch.randperm(len(images), generator=generator, device=images.device)
            total = torch.zeros((), device=images.device)
            for batch in order.split(batch_size)[: len(images) // batch_size]:
                moved = DISTORTIONS[distortion](normalize(images[batch]), generator)
                total += learn(judge, moved, labels[batch], optimizer)
                schedule.step()
            report(f"epoch {epoch + 1}/{epochs}: loss {total.item() * batch_size / len(images):.4f}")
    judge = in_use(judge, images)
    judge.test_accuracy = accuracy(judge, test_images, test_labels)
    judge.recipe = {"seed": seed, "epochs": epochs, "augment": distortion}  # `augment` in the files of judges
    to_bytes(judge)  # sets the hash, which scores carry
    return judge


def in_use(judge: Judge, images: Tensor) -> Judge:
    """The judge without BatchNorm layers of their own, its features scaled."""
    judge = scaled(judge.to(memory_format=torch.contiguous_format).fused(), images)
    return judge.to(memory_format=torch.channels_last)


def learn(judge: Judge, images: Tensor, labels: Tensor, optimizer: torch.optim.Optimizer) -> Tensor:
    """One step of the optimizer; the loss before it."""
    features = judge.features(images.to(memory_format=torch.channels_last))
    logits = judge.classify(F.dropout(features, 0.3))  # spreads each class over many features
    loss = F.cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


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
