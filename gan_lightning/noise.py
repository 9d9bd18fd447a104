"""One rule for randomness: every draw of iteration t comes from generators seeded with (seed, t).

So a run resumes exactly without storing any generator's state, and watching a run cannot change it.
Shapes: N points of the latent space, Z latent.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

BLOCK_SIZE = 500  # samples to be scored that are drawn from one seed
BLOCK = 1024  # points at a time; a multiple of 16, the numbers that torch draws together


def derive_seed(*parts: int) -> int:
    """Mix whole numbers >= 0 into one 64-bit seed; neighbouring inputs give unrelated seeds (NumPy's SeedSequence)."""
    # The count first: SeedSequence pads with zeros, so that (s,) and (s, 0) would be one.
    return int(np.random.SeedSequence([len(parts), *parts]).generate_state(1, np.uint64)[0]) >> 1


def block_seed(block: int, seed: int = 0) -> int:
    """Of the noise of a block of samples to be scored. A training's evaluations draw those of seed 0."""
    return derive_seed(seed, block) if seed else derive_seed(block)


def draw(num: int, latent_dim: int, seed: int, truncation: float | None = None) -> Iterator[Tensor]:
    """z ~ N(0, I), block by block: a million of them need no more memory than a thousand.

    With `truncation`, numbers outside of [-truncation, truncation] are drawn anew until they lie inside; the others
    stay as they are. Brock et al. 2019, section 3.1. https://arxiv.org/abs/1809.11096

    Returns:
        Blocks of up to 1024 rows, together (num, Z) float32: those of `GAN.sample(num, seed)`.
    """
    noise = torch.Generator().manual_seed(seed)
    for start in range(0, num, BLOCK):
        rows = min(BLOCK, num - start)
        # A block is drawn whole and cut, so that it does not depend on num: the last 16 of other than a multiple of 16
        # numbers are a draw of their own.
        z = torch.randn(BLOCK, latent_dim, generator=noise)
        while truncation and (outside := z.abs() > truncation).any():
            z[outside] = torch.randn(int(outside.sum()), generator=noise)
        yield z[:rows]


def walk(points: Tensor, steps: int, ends: bool = False) -> Iterator[Tensor]:
    """The round trip from each point to the next and from the last one back to the first, block by block.

    Args:
        points: (N, Z).
        steps: images on each of the N ways.
        ends: the last image of a way is the first of the next one; otherwise the one before that.

    Returns:
        Blocks of whole ways, together (N * steps, Z).
    """
    size = max(1, BLOCK // steps)
    for start, end in zip(points.split(size), points.roll(-1, dims=0).split(size), strict=True):
        yield slerp(start, end, steps if ends else steps + 1)[:, :steps].flatten(0, 1)


def slerp(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Spherical interpolation, which keeps the length that a Gaussian z has. White 2016. https://arxiv.org/abs/1609.04468

    `slerp(t) = sin((1 - t) w) / sin(w) * start + sin(t w) / sin(w) * end`, w the angle between the two.

    Args:
        start, end: (N, Z).
        steps: points on each way, both ends included.

    Returns:
        (N, steps, Z).
    """
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=1).clamp(-1, 1)
    angle = cosine.acos().view(-1, 1, 1)
    straight = angle.sin() < 1e-3  # on one line with the origin, as all z of latent_dim=1 are
    t = torch.linspace(0, 1, steps, device=start.device, dtype=start.dtype).view(1, -1, 1)
    start, end = start.unsqueeze(1), end.unsqueeze(1)
    from_start, from_end = (torch.where(straight, s, (s * angle).sin() / angle.sin()) for s in (1 - t, t))
    return from_start * start + from_end * end
