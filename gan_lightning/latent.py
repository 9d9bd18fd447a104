"""Walks through the latent space."""

import torch
from torch import Tensor


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
    angle = cosine.acos().clamp_min(1e-6).view(-1, 1, 1)
    t = torch.linspace(0, 1, steps, device=start.device, dtype=start.dtype).view(1, -1, 1)
    start, end = start.unsqueeze(1), end.unsqueeze(1)
    return ((1 - t) * angle).sin() / angle.sin() * start + (t * angle).sin() / angle.sin() * end
