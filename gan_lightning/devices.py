"""Several devices that compute as one."""

import logging
from functools import partial

import torch
import torch.distributed.nn.functional as distributed
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import LayerSync
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

log = logging.getLogger(__name__)


class SyncBatchNorm(LayerSync):
    """BatchNorm over the whole batch, not each device's share of it, as on one device.

    PyTorch's own runs on GPUs only, and cannot be differentiated twice, as a gradient penalty must.
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
    """The buffers of the first device on all of them, whenever somebody looks: while scores are made, and at the end.

    They differ where each device has BatchNorm over its own share of the batch. DDP itself does this before every
    iteration, so that it changes nothing in training; a checkpoint has the first device's anyway.
    """

    def on_validation_start(self, trainer: Trainer, gan: LightningModule) -> None:
        self.on_train_end(trainer, gan)

    def on_train_end(self, trainer: Trainer, gan: LightningModule) -> None:
        for buffer in gan.buffers():
            torch.distributed.broadcast(buffer, 0)


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]


def batch_norm_over_devices(layer: _BatchNorm, x: Tensor) -> Tensor:
    """What `layer` computes of the batches of all devices together, each of the same size.

    m = mean(m_r),   v = mean(v_r + (m_r - m)^2),   m_r and v_r of device r

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
