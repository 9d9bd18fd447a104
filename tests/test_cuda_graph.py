"""`cuda_graph=true` on a CPU: what is refused, and who is called when. What it computes: tests/test_gpu.py."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate

from gan_lightning.callbacks import cuda_graph
from gan_lightning.callbacks.cuda_graph import WARMUP, CudaGraph
from gan_lightning.train import build_gan, build_trainer

CUDA = SimpleNamespace(type="cuda")


@pytest.fixture
def recorded(monkeypatch):
    """A CUDA that records nothing; the list of graphs that are replayed, in order."""
    replayed = []

    class Graph:
        def register_generator_state(self, generator):
            pass

        def replay(self):
            replayed.append(self)

    stream = SimpleNamespace(device="cpu", wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    for name in "stream", "graph":
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(cuda_graph.Graph, "recordable", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(CudaGraph, "setup", lambda *_, **__: None)  # which refuses a CPU
    return replayed


@pytest.mark.parametrize(("n_critic", "kinds"), [(1, 1), (3, 2)])
def test_iterations_are_replayed_after_a_warmup_of_each_kind_and_counted(compose, recorded, n_critic, kinds):
    config = compose(
        "cuda_graph=true", f"n_critic={n_critic}", "logger=none", "trainer.max_epochs=-1", "trainer.max_steps=24"
    )
    config.callbacks = {}
    trainer, gan = build_trainer(config), build_gan(config)
    trainer.fit(gan, instantiate(config.data))
    assert trainer.global_step == 24
    assert len(recorded) == 24 - kinds * WARMUP
    assert len(set(recorded)) == kinds
    assert "iterate" not in vars(gan)  # GAN's own again


def test_a_cpu_is_refused_in_one_line(compose):
    config = compose("cuda_graph=true", "logger=none")
    config.callbacks = {}
    with pytest.raises(ValueError, match=r"^cuda_graph=true needs a single GPU, .* use cuda_graph=false$"):
        build_trainer(config).fit(build_gan(config), instantiate(config.data))


@pytest.mark.parametrize(
    ("device", "world_size", "beta2", "message"),
    [
        (CUDA, 2, None, "cuda_graph=true needs a single GPU, and this run is on 2 cuda"),
        (SimpleNamespace(type="mps"), 1, None, "cuda_graph=true needs a single GPU, and this run is on 1 mps"),
        (CUDA, 1, object(), "cuda_graph=true: a graph cannot change Adam's beta2; .*optimizer.beta2_schedule=null"),
    ],
)
def test_what_a_graph_cannot_do_is_refused(device, world_size, beta2, message):
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=device), world_size=world_size)
    with pytest.raises(ValueError, match=message):
        CudaGraph().setup(trainer, SimpleNamespace(beta2_schedule=beta2), "fit")
