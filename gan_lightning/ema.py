"""The averaged generator: what samples, evaluation and export use."""

import copy

import torch
from torch import Tensor, nn


class EMA(nn.Module):
    """Exponential moving average of the generator's weights. Karras et al. 2018, appendix A.1.
    https://arxiv.org/abs/1710.10196

    After an update on a batch of B images: `average = d * average + (1 - d) * weights`,  `d = 0.5^(B / h)`.
    The half-life h is `half_life_kimg` thousand images, and at most `warmup` times the number of images seen so
    far, so that the random start does not dominate a short run: as in StyleGAN2-ADA's code, Karras et al. 2020.
    https://arxiv.org/abs/2006.06676
    Buffers (BatchNorm's statistics) are copied, as there. To average them, as in BigGAN, or to compute them again for
    the averaged weights, scores no better: docs/results.md.

    Args:
        half_life_kimg: thousands of images after which a weight counts half.
        warmup: share of the images seen so far that the half-life may not exceed.
    """

    def __init__(self, half_life_kimg: float = 25.2, warmup: float = 0.05) -> None:
        super().__init__()
        if half_life_kimg <= 0:
            raise ValueError(f"half_life_kimg={half_life_kimg} must be positive; to switch averaging off: ema=null")
        if not 0 < warmup <= 1:
            raise ValueError(f"warmup={warmup} must lie in (0, 1]; try 0.05")
        self.half_life_kimg = half_life_kimg
        self.warmup = warmup
        self.generator: nn.Module | None = None

    def follow(self, generator: nn.Module) -> None:
        """Start the average at the generator's weights."""
        self.generator = copy.deepcopy(generator).requires_grad_(False)

    def weight(self, batch_size: int, images_seen: int) -> float:
        """`1 - d`: the share of the generator's weights in the next update.

        Args:
            batch_size: images since the last update, over all devices.
            images_seen: images since the start of training, over all devices, with those of this update.
        """
        half_life = min(self.half_life_kimg * 1000, self.warmup * images_seen)
        return 1 - 0.5 ** (batch_size / half_life)

    @torch.no_grad()
    def update(self, generator: nn.Module, weight: float | Tensor) -> None:
        """Move the average by the share `weight`, a number or a scalar Tensor, towards the generator's weights."""
        assert self.generator is not None, "follow() comes first"
        averages: list[Tensor] = list(self.generator.parameters())
        weights: list[Tensor] = list(generator.parameters())
        # One fused call for all weights: a loop over them costs as much as a small step.
        if isinstance(weight, Tensor):
            torch._foreach_lerp_(averages, weights, [weight] * len(weights))
        else:
            torch._foreach_lerp_(averages, weights, weight)
        for average, buffer in zip(self.generator.buffers(), generator.buffers(), strict=True):
            average.copy_(buffer)
