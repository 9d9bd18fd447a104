import math

import torch
from torch.testing import assert_close

from gan_lightning.noise import slerp


def vectors(seed, num=4, latent_dim=64):
    return torch.randn(num, latent_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_quarter_circle_is_walked_at_constant_speed():
    path = slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), steps=4)
    angles = torch.linspace(0, math.pi / 2, 4)
    assert_close(path, torch.stack([angles.cos(), angles.sin()], dim=1).unsqueeze(0))


def test_both_ends_are_on_the_way():
    start, end = vectors(0), vectors(1)
    path = slerp(start, end, steps=7)
    assert path.shape == (4, 7, 64)
    assert_close(path[:, 0], start)
    assert_close(path[:, -1], end)


def test_length_stays_between_those_of_the_ends_where_a_straight_line_loses_it():
    start, end = vectors(0), vectors(1)
    middle = slerp(start, end, steps=3)[:, 1].norm(dim=1)
    lengths = torch.stack([start.norm(dim=1), end.norm(dim=1)])
    assert (middle > 0.95 * lengths.min(dim=0).values).all()
    assert (middle < 1.05 * lengths.max(dim=0).values).all()
    assert (((start + end) / 2).norm(dim=1) < 0.85 * lengths.min(dim=0).values).all()


def test_way_to_the_same_point_stays_there():
    start = vectors(0).float()
    assert_close(slerp(start, start, steps=3), start.unsqueeze(1).expand(-1, 3, -1))
    # of another length, but in the same direction
    path = slerp(start, 2 * start, steps=3)
    assert_close(path[:, 1], 1.5 * start, rtol=1e-3, atol=1e-3)
