"""The whole iteration as one CUDA graph: its kernels are recorded once, and then started by a single call.

A small network leaves a GPU idle while Python starts one kernel after the other.
https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs

A graph reads fixed addresses. So images, labels and the numbers that change (learning rates, the penalty's factor, the
weight in the average) are copied there before each replay. Noise comes from generators registered with the graph and
seeded before each iteration, as without a graph. Losses, logits and gradients stay where the graph writes them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

WARMUP = 3  # iterations without a graph: optimizers and CUDA's libraries allocate memory in their first steps


class CudaGraph(Callback):
    """Replay a CUDA graph for each iteration. The numbers are the same as without it.

    There are two graphs: for iterations with G's turn, and for those without.

    Args:
        enabled: false: iterations are done as they come.

    Raises:
        ValueError: before training, if the run is not on one GPU or changes Adam's beta2; when a graph is recorded, if
            the step does something that a graph cannot do.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def setup(self, trainer: Trainer, gan: LightningModule, stage: str) -> None:
        if not self.enabled:
            return
        device = trainer.strategy.root_device
        if device.type != "cuda" or trainer.world_size > 1:
            raise ValueError(
                f"cuda_graph=true needs a single GPU, and this run is on {trainer.world_size} {device.type} "
                "device(s); use cuda_graph=false"
            )
        if gan.beta2_schedule:
            raise ValueError(
                "cuda_graph=true: a graph cannot change Adam's beta2; use cuda_graph=false, or "
                "optimizer.beta2_schedule=null"
            )

    def on_train_start(self, trainer: Trainer, gan: LightningModule) -> None:
        if not self.enabled:
            return
        stream = torch.cuda.Stream(gan.device)
        self.graphs = {turn: Graph(gan, gan.iterate, trainer.optimizers, stream) for turn in (False, True)}
        gan.iterate = self.iterate

    def iterate(
        self, real: Tensor, labels: Tensor | None, optimizers: Any, is_generators_turn: bool, **numbers: float
    ) -> dict[str, Tensor]:
        """In place of `GAN.iterate`."""
        discriminator_optimizer, generator_optimizer = optimizers
        discriminator_optimizer._on_before_step()  # Lightning's count of iterations, which a bare step leaves out
        bare = discriminator_optimizer.optimizer, generator_optimizer
        step = self.graphs[is_generators_turn](real, labels, bare, is_generators_turn, numbers)
        discriminator_optimizer._on_after_step()
        return step

    def on_train_end(self, trainer: Trainer, gan: LightningModule) -> None:
        if self.enabled:
            del gan.iterate, self.graphs


class Graph:
    """One kind of iteration: run a few times, then recorded, then replayed.

    Args:
        iterate: `GAN.iterate`.
        optimizers: both.
        stream: for recording, and for the iterations before it.
    """

    def __init__(self, gan: Any, iterate: Any, optimizers: list[Optimizer], stream: torch.cuda.Stream) -> None:
        self.gan, self.iterate, self.optimizers, self.stream = gan, iterate, optimizers, stream
        self.groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self.graph = torch.cuda.CUDAGraph()
        self.num_done = 0
        self.sent: list[float] = []

    def __call__(
        self, real: Tensor, labels: Tensor | None, bare: Any, is_generators_turn: bool, numbers: dict[str, float]
    ) -> dict[str, Tensor]:
        self.num_done += 1
        if self.num_done <= WARMUP:
            return self.as_it_comes(real, labels, bare, is_generators_turn, **numbers)
        if self.num_done == WARMUP + 1:
            self.record(real, labels, bare, is_generators_turn, list(numbers))
        self.send(real, labels, numbers)
        self.graph.replay()
        for weight, gradient in self.gradients:  # the other graph leaves its own
            weight.grad = gradient
        return self.step

    def as_it_comes(self, *args: Any, **numbers: float) -> dict[str, Tensor]:
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            step = self.iterate(*args, **numbers)
        current.wait_stream(self.stream)
        return detached(step)

    def record(
        self, real: Tensor, labels: Tensor | None, bare: Any, is_generators_turn: bool, numbers: list[str]
    ) -> None:
        self.real, self.labels = real.clone(), None if labels is None else labels.clone()
        self.numbers = torch.empty(len(numbers) + len(self.groups), device=real.device)
        factors, rates = self.numbers[: len(numbers)], self.numbers[len(numbers) :]
        for generator in self.gan.noise, self.gan.chance:
            self.graph.register_generator_state(generator)
        try:
            with (
                self.recordable(rates),
                torch.cuda.graph(self.graph, stream=self.stream, capture_error_mode="thread_local"),
            ):
                step = self.iterate(
                    self.real, self.labels, bare, is_generators_turn, **dict(zip(numbers, factors, strict=True))
                )
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"cuda_graph=true: this step cannot be recorded ({reason}); use cuda_graph=false"
            ) from error
        self.step = detached(step)
        updated = [group for optimizer in bare[: 1 + is_generators_turn] for group in optimizer.param_groups]
        self.gradients = [(weight, weight.grad) for group in updated for weight in group["params"]]

    @contextmanager
    def recordable(self, rates: Tensor) -> Iterator[None]:
        """Make the optimizers read their state, and changing learning rates, from the GPU.

        Args:
            rates: (groups,) learning rates.
        """
        for optimizer in self.optimizers:
            for state in optimizer.state.values():
                if "step" in state:
                    state["step"] = state["step"].to(rates.device)
        usual = [dict(group) for group in self.groups]
        for group, rate in zip(self.groups, rates, strict=True):
            group["capturable"] = True
            if self.gan.schedule:  # otherwise keep the number: in float32 it would be rounded
                group["lr"] = rate
        try:
            yield
        finally:
            for group, before in zip(self.groups, usual, strict=True):
                group.clear()
                group.update(before)

    def send(self, real: Tensor, labels: Tensor | None, numbers: dict[str, float]) -> None:
        """Copy an iteration's data to where the graph reads them."""
        self.real.copy_(real)
        if self.labels is not None and labels is not None:
            self.labels.copy_(labels)
        values = [*numbers.values(), *(group["lr"] for group in self.groups)]
        if values != self.sent:
            self.numbers.copy_(torch.tensor(values), non_blocking=True)
            self.sent = values


def detached(step: dict[str, Tensor]) -> dict[str, Tensor]:
    """The values without their autograd graph, whose nodes belong to the stream on which they were made."""
    return {name: value.detach() for name, value in step.items()}
