"""Everything random follows from (seed, t): seeds, latents, walks, and the blocks of samples to score.

Generators are seeded from (seed, t) before iteration t. So a run resumes exactly without storing any generator's
state, and watching a run cannot change it.

Shapes: N latents, Z numbers in each.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

BLOCK_SIZE = 500  # samples in a block; the samples of a block share one seed
CHUNK_SIZE = 1024  # latents in memory at a time; a multiple of 16, because torch draws 16 numbers together


def derive_seed(*parts: int) -> int:
    """Mix whole numbers >= 0 into one 64-bit seed; neighbouring inputs give unrelated seeds (NumPy's SeedSequence)."""
    # The count first: SeedSequence pads with zeros, so (s,) and (s, 0) would give the same seed.
    return int(np.random.SeedSequence([len(parts), *parts]).generate_state(1, np.uint64)[0]) >> 1


def sample_blocks(num_samples: int, size: int = BLOCK_SIZE) -> list[tuple[int, int]]:
    """Divide the samples to score into numbered blocks, `(number, size)`. Devices share the blocks among them."""
    return [(start // size, min(size, num_samples - start)) for start in range(0, num_samples, size)]


def block_seed(block: int, seed: int = 0) -> int:
    """Seed of the latents of one block. The evaluations of a training use seed 0."""
    return derive_seed(seed, block) if seed else derive_seed(block)


def draw_latents(num: int, latent_dim: int, seed: int, truncation: float | None = None) -> Iterator[Tensor]:
    """z ~ N(0, I) in chunks: a million latents need no more memory than a thousand.

    With `truncation`, numbers outside [-truncation, truncation] are drawn again until they lie inside; the others stay
    as they are. Brock et al. 2019, section 3.1. https://arxiv.org/abs/1809.11096

    Returns:
        Chunks of up to 1024 rows, together (num, Z) float32: the latents of `GAN.sample(num, seed)`.
    """
    noise = torch.Generator().manual_seed(seed)
    for start in range(0, num, CHUNK_SIZE):
        rows = min(CHUNK_SIZE, num - start)
        # Draw a whole chunk, then cut it: torch draws the last 16 numbers differently if the count is not a multiple
        # of 16, and the result would depend on num.
        z = torch.randn(CHUNK_SIZE, latent_dim, generator=noise)
        while truncation and (outside := z.abs() > truncation).any():
            z[outside] = torch.randn(int(outside.sum()), generator=noise)
        yield z[:rows]


def walk(points: Tensor, steps: int, ends: bool = False) -> Iterator[Tensor]:
    """The round trip from each point to the next, and from the last one back to the first, in chunks.

    Args:
        points: (N, Z).
        steps: images on each of the N ways.
        ends: True: a way ends at the next point, which the next way then repeats. False: it ends one step before.

    Returns:
        Chunks of whole ways, together (N * steps, Z).
    """
    size = max(1, CHUNK_SIZE // steps)
    for start, end in zip(points.split(size), points.roll(-1, dims=0).split(size), strict=True):
        yield slerp(start, end, steps if ends else steps + 1)[:, :steps].flatten(0, 1)


def slerp(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Spherical interpolation; it keeps the typical length of a Gaussian z. White 2016. https://arxiv.org/abs/1609.04468

    `slerp(t) = sin((1 - t) w) / sin(w) * start + sin(t w) / sin(w) * end`, w the angle between the two.

    Args:
        start, end: (N, Z).
        steps: points on each way, with both ends.

    Returns:
        (N, steps, Z).
    """
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=1).clamp(-1, 1)
    angle = cosine.acos().view(-1, 1, 1)
    straight = angle.sin() < 1e-3  # on one line through the origin, as always for latent_dim=1
    t = torch.linspace(0, 1, steps, device=start.device, dtype=start.dtype).view(1, -1, 1)
    start, end = start.unsqueeze(1), end.unsqueeze(1)
    from_start, from_end = (torch.where(straight, s, (s * angle).sin() / angle.sin()) for s in (1 - t, t))
    return from_start * start + from_end * end
