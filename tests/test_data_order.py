"""Which images training sees, and when: of one image a row, and of stacks."""

from itertools import chain, islice

import pytest
import test_data_module
import test_data_stacked
import torch
from test_data_module import SaveAt, fit

DATA = pytest.mark.parametrize("data", [test_data_module, test_data_stacked], ids=["images", "stacks"])


@DATA
def test_order_depends_on_the_seed_alone(data):
    torch.manual_seed(1)
    first = data.rows(data.loader(seed=5))
    torch.manual_seed(2)
    assert data.rows(data.loader(seed=5)) == first
    assert data.rows(data.loader(seed=6)) != first


@DATA
@pytest.mark.parametrize("replacement", [False, True])
def test_shares_of_the_ranks_add_up_to_the_global_batch(data, replacement):
    whole = data.rows(data.loader(replacement=replacement))
    shares = [data.rows(data.loader(replacement=replacement, rank=rank, world_size=4)) for rank in range(4)]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == whole


@DATA
@pytest.mark.parametrize("iterations", [0, 3, 10, 13])
def test_loader_goes_on_from_its_saved_state(data, iterations):
    original = data.loader()
    for _ in range(iterations // 10):
        data.rows(original)
    list(islice(original, iterations % 10))
    restored = data.loader()
    restored.load_state_dict(original.state_dict())
    assert data.rows(restored) == data.rows(original)


# 80 images are 10 batches an epoch: in the middle of the first epoch, at its end, and in the second.
@DATA
@pytest.mark.parametrize("stop", [5, 10, 13])
def test_resumed_run_sees_the_batches_of_an_uninterrupted_one(tmp_path, data, stop):
    path = tmp_path / "mid.ckpt"
    whole = fit(tmp_path, data.module(tmp_path), [SaveAt(stop, path)], max_epochs=3)
    resumed = fit(tmp_path, data.module(tmp_path), ckpt_path=path, max_epochs=3)
    assert len(whole.batches) == 30
    assert resumed.batches == whole.batches[stop:]
    assert resumed.epochs == whole.epochs[stop:]
