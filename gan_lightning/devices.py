"""Several devices that compute as one."""

import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.distributed.nn.functional as distributed
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import LayerSync
from lightning.pytorch.plugins.environments import SLURMEnvironment
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

STRATEGY = "ddp_find_unused_parameters_true"  # either network is unused in the other's turn

log = logging.getLogger(__name__)


def count_devices(config: Any) -> int:
    """Number of devices on each node that `trainer.devices` asks for.

    Raises:
        ValueError: if it is not a number of devices; on a CPU, where devices are processes, also if there are too many.
    """
    asked: Any = config.trainer.devices
    given = f"trainer.devices={str(asked).replace(' ', '') if asked is not None else 'null'}"
    if isinstance(asked, bool) or not isinstance(asked, int | Sequence):
        raise ValueError(f"{given} must be a whole number; use trainer.devices=1")
    auto = config.trainer.accelerator == "auto"
    if config.trainer.accelerator == "cpu" or (auto and not torch.accelerator.is_available()):
        most = max(8, os.cpu_count() or 1)  # eight on a laptop try what eight GPUs will do
        if asked == "auto":
            return 1
        if not str(asked).isdigit() or not 1 <= int(str(asked)) <= most:
            raise ValueError(f"{given}: on a CPU it is the number of processes, 1 to {most} on this machine")
        return int(str(asked))
    if str(asked) in ("auto", "-1"):
        return max(1, torch.accelerator.device_count())
    if isinstance(asked, str):
        asked = [word for word in asked.split(",") if word.strip()] if "," in asked else asked
        if isinstance(asked, str) and not asked.isdecimal():
            raise ValueError(f"{given} must be a whole number, auto, or a list such as [0,1]")
    return int(asked) if isinstance(asked, int | str) else len(asked)


def check_processes(config: Any, devices: int) -> None:
    """Check that the processes of this run are those that a launcher has started, or that Lightning starts.

    Raises:
        ValueError: if this process would train alone beside others, or wait for processes that never come.
    """
    nodes, strategy = config.trainer.num_nodes, config.trainer.strategy
    expected, given = devices * nodes, f"trainer.devices={devices}"
    started = int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", 1)))
    name = "WORLD_SIZE" if "WORLD_SIZE" in os.environ else "SLURM_STEP_NUM_TASKS"
    if expected == 1 and started > 1:
        raise ValueError(
            f"{given}: the launcher has started {started} processes, and each would train alone; "
            "add trainer.devices=<processes on a node>, and trainer.num_nodes where there are several; "
            f"without a launcher: unset {name}"
        )
    if expected > 1 and started == 1 and SLURMEnvironment.detect():
        raise ValueError(
            f"{given}: SLURM has a job for this process alone, and it would wait for others; start it with srun, "
            "or without SLURM: unset SLURM_NTASKS"
        )
    if nodes > 1 and started == 1 and "MASTER_ADDR" not in os.environ:
        raise ValueError(
            f"trainer.num_nodes={nodes}: this process would wait for those of other nodes; start it on each of them "
            "with torchrun or srun, or use trainer.num_nodes=1"
        )
    if isinstance(strategy, str) and strategy not in ("auto", STRATEGY):
        raise ValueError(
            f"trainer.strategy={strategy} does not train two networks in turn; use trainer.strategy=auto, "
            f"for several devices it is {STRATEGY}"
        )


def together(config: Any, is_job: bool) -> dict[str, Any]:
    """Arguments of Lightning's Trainer that make the devices of a run compute as one.

    Args:
        is_job: of a sweep, in the sweep's own process.

    Raises:
        ValueError: if the run's processes cannot be those that the config asks for.
    """
    devices = count_devices(config)
    check_processes(config, devices)
    on_slurm = SLURMEnvironment.detect()
    # auto_requeue saves from within a signal's handler, in the middle of an iteration.
    plugins: list[Any] = [SLURMEnvironment(auto_requeue=False)] if on_slurm else []
    settings = {"plugins": plugins, "sync_batchnorm": False}  # ours, not Lightning's
    if devices * config.trainer.num_nodes == 1:
        return settings
    if is_job and not on_slurm:
        raise ValueError(
            f"trainer.devices={devices}: with this hydra/launcher each device would start the whole "
            "sweep again; use hydra/launcher=process"
        )
    if config.trainer.sync_batchnorm:
        plugins.append(SyncBatchNorm())
    return settings | ({"strategy": STRATEGY} if config.trainer.strategy == "auto" else {})


class SyncBatchNorm(LayerSync):
    """BatchNorm over the batch of all devices together, as on one device.

    PyTorch's own runs on GPUs only, and cannot be differentiated twice, which a gradient penalty needs.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        layers = batch_norms(model)
        if layers:
            log.info("BatchNorm looks at the batch of all devices together (trainer.sync_batchnorm)")
        for layer in layers:
            layer.forward = partial(batch_norm_over_devices, layer)  # type: ignore[method-assign]
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        for layer in batch_norms(model):
            layer.__dict__.pop("forward", None)
        return model


class SameBuffers(Callback):
    """Copy the buffers of the first device to all others, before each validation and at the end of training.

    Buffers differ if each device has BatchNorm over its own share of the batch. DDP copies them before every iteration
    anyway, so this changes nothing in training, and a checkpoint holds those of the first device.
    """

    def on_validation_start(self, trainer: Trainer, gan: LightningModule) -> None:
        self.on_train_end(trainer, gan)

    def on_train_end(self, trainer: Trainer, gan: LightningModule) -> None:
        if trainer.world_size == 1:
            return
        for buffer in gan.buffers():
            torch.distributed.broadcast(buffer, 0)


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]


def batch_norm_over_devices(layer: _BatchNorm, x: Tensor) -> Tensor:
    """Output of `layer` for the batches of all devices together, each of the same size.

    m = mean(m_r),   v = mean(v_r + (m_r - m)^2),   m_r and v_r: mean and variance on device r

    Args:
        x: (B, C) or (B, C, ...), this device's share.
    """
    if not layer.training:
        return type(layer).forward(layer, x)
    world_size = torch.distributed.get_world_size()
    dims = [0, *range(2, x.dim())]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    values = x if x.dtype == torch.float64 else x.float()  # bf16 is too coarse for a variance
    own_var, own_mean = torch.var_mean(values, dims, correction=0)  # (C,)
    mean = distributed.all_reduce(own_mean) / world_size
    var = distributed.all_reduce(own_var + (own_mean - mean).square()) / world_size
    if layer.running_mean is not None:
        assert layer.running_var is not None and layer.num_batches_tracked is not None
        count = x.numel() // x.shape[1] * world_size
        with torch.no_grad():
            layer.num_batches_tracked.add_(1)
            momentum = 1 / layer.num_batches_tracked.item() if layer.momentum is None else layer.momentum
            layer.running_mean.lerp_(mean.to(layer.running_mean.dtype), momentum)
            layer.running_var.lerp_((var * count / (count - 1)).to(layer.running_var.dtype), momentum)
    y = (values - mean.view(shape)) * (var + layer.eps).rsqrt().view(shape)
    if layer.affine:
        y = y * layer.weight.view(shape) + layer.bias.view(shape)
    return y.to(x.dtype)
