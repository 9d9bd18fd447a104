"""Algorithm 1 of Goodfellow et al. 2014 as a LightningModule. https://arxiv.org/abs/1406.2661

Shapes: B images of this device's share of the batch, Z latent, C channels, H height, W width.
"""

from collections.abc import Callable, Iterable
from functools import partial
from numbers import Integral
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from gan_lightning.augment import Augment
from gan_lightning.conditioning import Conditioning
from gan_lightning.ema import EMA
from gan_lightning.losses import Loss, NonSaturating
from gan_lightning.models.check import (
    call_in_eval_mode,
    check_classes,
    check_networks,
    check_numbers,
    check_parts,
    check_shapes,
)
from gan_lightning.noise import BLOCK_SIZE, block_seed, derive_seed, draw_latents
from gan_lightning.penalties import Constraint, Penalty, check_combination
from gan_lightning.schedules import Schedule, check_beta2

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
Step = dict[str, Tensor]

ADAM: MakeOptimizer = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))  # DCGAN, section 4
CHECKPOINT_VERSION = 1


class GAN(LightningModule):
    """A generator (G) and a discriminator (D) that are trained against each other.

    An iteration is one batch of real images: one update of D, and after every `n_critic` of them one update of G.
    `global_step` counts iterations.

    Args:
        generator: called as `generator(z, labels)`, (B, Z) -> (B, C, H, W) in [-1, 1].
        discriminator: called as `discriminator(images, labels)`, (B, C, H, W) in [-1, 1] -> (B,) logits. One that also
            classifies returns (logits, class logits).
        loss: what the two networks minimise, see `losses.py`.
        conditioning: how labels are used, see `conditioning.py`; None: not at all, and the networks get None.
        penalty: added to D's loss for a steep slope, see `penalties.py`.
        constraint: applied to D's weights after each of its steps, see `penalties.py`.
        augment: applied to every image before D sees it, see `augment.py`.
        ema: the averaged generator, which then makes all samples.
        generator_optimizer, discriminator_optimizer: parameters -> optimizer.
        schedule: factor on the learning rates over the run, see `schedules.py`; None: constant.
        beta2_schedule: factor on Adam's `1 - beta2`, the weight of the newest squared gradient; None: constant.
        max_gradient_norm: a longer gradient of D or of G is cut down to this length; None: no limit.
        latent_dim: Z.
        n_critic: updates of D for one of G; k in the paper.
        reuse_fake: True: G's turn uses the images of D's turn again, instead of images from fresh noise.
        seed: everything random in iteration t follows from (seed, t).
        networks: the config that builds the two networks. Checkpoints keep it, so that they can be loaded alone.

    An empty mapping in the place of conditioning, penalty, constraint or augment counts as None: `none` in conf/.

    Raises:
        ValueError: if latent_dim or n_critic is below 1, max_gradient_norm is not positive, a part is no such part, a
            network does not take labels or knows another number of classes than the conditioning, or the constraint
            does not work with the discriminator.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: Loss | None = None,
        conditioning: Conditioning | None = None,
        penalty: Penalty | None = None,
        constraint: Constraint | None = None,
        augment: Augment | None = None,
        ema: EMA | None = None,
        generator_optimizer: MakeOptimizer = ADAM,
        discriminator_optimizer: MakeOptimizer = ADAM,
        schedule: Schedule | None = None,
        beta2_schedule: Schedule | None = None,
        max_gradient_norm: float | None = None,
        latent_dim: int = 100,
        n_critic: int = 1,
        reuse_fake: bool = False,
        seed: int = 0,
        networks: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_numbers(latent_dim, n_critic, max_gradient_norm)
        check_parts(
            loss=loss, conditioning=conditioning, penalty=penalty, constraint=constraint, augment=augment, ema=ema
        )
        self.automatic_optimization = False
        self.generator = generator
        self.discriminator = discriminator
        self.loss = loss or NonSaturating()
        self.conditioning = conditioning or Conditioning()
        self.penalty = penalty or None
        self.constraint = constraint or None
        self.augment = augment or None
        check_networks(generator, discriminator, self.conditioning.num_classes)
        check_combination(discriminator, self.loss, self.penalty, self.constraint)
        self.ema = ema
        if ema:
            ema.follow(generator)
        self.make_optimizers = {"discriminator": discriminator_optimizer, "generator": generator_optimizer}
        self.schedule = schedule
        self.beta2_schedule = beta2_schedule
        self.max_gradient_norm = max_gradient_norm
        self.latent_dim = latent_dim
        self.n_critic = n_critic
        self.reuse_fake = reuse_fake
        self.seed = seed
        self.networks = networks
        self.noise, self.chance = torch.Generator(), torch.Generator()  # for z; for penalties and augmentation

    def on_fit_start(self) -> None:
        data, num_classes = self.trainer.datamodule, self.conditioning.num_classes
        check_classes(num_classes, getattr(data, "num_classes", num_classes))
        labels, image_shape = self.conditioning.in_turn(2), getattr(data, "image_shape", None)
        check_shapes(self.generator, self.discriminator, self.latent_dim, labels, image_shape)

    def on_train_start(self) -> None:
        schedules = {
            "schedule": self.schedule,
            "optimizer.beta2_schedule": self.beta2_schedule,
            "penalty.schedule": self.penalty.schedule if self.penalty else None,
        }
        for key, schedule in schedules.items():
            try:
                self.factor(schedule)
            except ValueError as error:  # the schedule does not fit the length of the run
                raise ValueError(f"{key}.{error}") from None

    def training_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> Step:
        """One iteration on (B, C, H, W) images in [-1, 1]; returns its losses and logits."""
        if isinstance(batch, Tensor) or len(batch) != 2:
            raise ValueError(
                "a batch must be (images, labels); in Python: trainer.fit(gan, ImageDataModule.from_tensors(images))"
            )
        real, classes = batch
        labels = classes if self.conditioning.num_classes else None  # generated images have the real ones' classes
        self.seed_iteration()
        self.follow_schedule()
        discriminator_optimizer, generator_optimizer = self.optimizers()
        return self.iterate(
            real,
            labels,
            # G's bare optimizer: a step through Lightning's wrapper would count as another iteration.
            (discriminator_optimizer, generator_optimizer.optimizer),
            is_generators_turn=(self.global_step + 1) % self.n_critic == 0,
            penalty_factor=self.factor(self.penalty.schedule) if self.penalty else 1.0,
            ema_weight=self.ema_weight(len(real) * self.trainer.world_size),
        )

    def iterate(
        self,
        real: Tensor,
        labels: Tensor | None,
        optimizers: tuple[LightningOptimizer | Optimizer, Optimizer],
        is_generators_turn: bool,
        penalty_factor: float | Tensor,
        ema_weight: float | Tensor,
    ) -> Step:
        """Algorithm 1. Nothing here makes the host wait for the device, see `callbacks/cuda_graph.py`."""
        discriminator_optimizer, generator_optimizer = optimizers
        # Separate passes of D for real and generated images: BatchNorm must not mix their statistics.
        with torch.set_grad_enabled(is_generators_turn and self.reuse_fake):
            fake = self.generator(self.sample_latent(real), labels)
        real_logits, real_class_loss = self.discriminate(real, labels)
        fake_logits, fake_class_loss = self.discriminate(fake.detach(), labels)
        d_loss = self.loss.discriminator(real_logits, fake_logits) + real_class_loss + fake_class_loss
        step = {"d_loss": d_loss, "real_logits": real_logits, "fake_logits": fake_logits}
        if self.penalty:
            penalty = self.penalty(self.logits, real, fake.detach(), labels, self.sample_uniform(real, 1))
            step["penalty"] = penalty_factor * penalty
            d_loss = d_loss + step["penalty"]
        self.descend(discriminator_optimizer, d_loss)
        if self.constraint:
            self.constraint(self.discriminator)

        if is_generators_turn:
            self.discriminator.requires_grad_(False)  # its weights need no gradient here
            if not self.reuse_fake:
                fake = self.generator(self.sample_latent(real), labels)
            paired_logits = self.logits(real, labels) if self.loss.needs_real_logits else None
            fake_logits, fake_class_loss = self.discriminate(fake, labels)
            step["g_loss"] = self.loss.generator(paired_logits, fake_logits) + fake_class_loss
            self.descend(generator_optimizer, step["g_loss"])
            self.discriminator.requires_grad_(True)
            if self.ema:
                self.ema.update(self.generator, ema_weight)
        return step

    def discriminate(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """D's logits, and its class loss: 0 without a classifier."""
        if self.augment:
            images = self.augment(images, self.sample_uniform(images, self.augment.num_draws))
        return self.conditioning.split(self.discriminator(images, labels), labels)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return self.discriminate(images, labels)[0]

    def seed_iteration(self) -> None:
        """Seed iteration t: noise of the whole batch alike on all devices, dropout of each device for itself."""
        if self.noise.device != self.device:
            self.noise, self.chance = torch.Generator(self.device), torch.Generator(self.device)
        self.noise.manual_seed(derive_seed(self.seed, self.global_step))
        self.chance.manual_seed(derive_seed(self.seed, self.global_step, 0))
        own = derive_seed(self.seed, self.global_step, 1 + self.global_rank)
        torch.default_generator.manual_seed(own)  # 3 us; torch.manual_seed takes 0.7 ms, it seeds every kind of device
        if self.device.type == "cuda":
            torch.cuda.manual_seed(own)

    def follow_schedule(self) -> None:
        """Set the learning rates and beta2 of both optimizers for this iteration. They follow from its number alone."""
        groups = [group for optimizer in self.trainer.optimizers for group in optimizer.param_groups]
        if self.schedule:
            factor = self.factor(self.schedule)
            for group in groups:
                group["lr"] = factor * group["initial_lr"]
        if self.beta2_schedule:
            factor = self.factor(self.beta2_schedule)
            for group in groups:
                beta1, beta2 = group["initial_betas"]
                group["betas"] = (beta1, 1 - factor * (1 - beta2))

    def factor(self, schedule: Schedule | None) -> float:
        """The schedule's factor in this iteration."""
        return schedule(self.global_step, self.trainer.estimated_stepping_batches) if schedule else 1.0

    def ema_weight(self, batch_size: int) -> float:
        """Share of G's weights in the average, if it is updated in this iteration."""
        if not self.ema:
            return 0.0
        return self.ema.weight(batch_size * self.n_critic, batch_size * (self.global_step + 1))

    def sample_latent(self, real: Tensor) -> Tensor:
        """z ~ N(0, I) for as many images as `real`.   # (B, Z)"""
        return self._own_rows(torch.randn, real, self.latent_dim, self.noise, real.dtype)

    def sample_uniform(self, images: Tensor, num: int) -> Tensor:
        """Uniforms in [0, 1) for penalties and augmentation.   # (B, num)"""
        dtype = torch.promote_types(images.dtype, torch.float32)  # bfloat16 has only 256 numbers in [0, 1)
        return self._own_rows(torch.rand, images, num, self.chance, dtype)

    def _own_rows(
        self,
        distribution: Callable[..., Tensor],
        images: Tensor,
        num: int,
        generator: torch.Generator,
        dtype: torch.dtype,
    ) -> Tensor:
        """Draw for the whole batch and return this device's rows: several devices draw what one would.   # (B, num)"""
        size = len(images)
        whole = distribution(
            size * self.trainer.world_size, num, generator=generator, device=images.device, dtype=dtype
        )
        return whole[size * self.global_rank :][:size]

    def descend(self, optimizer: LightningOptimizer | Optimizer, loss: Tensor) -> None:
        """Take one step down the gradient of the loss. The gradient is kept: callbacks log its norm."""
        optimizer.zero_grad()
        # As manual_backward, but without two rounds of hooks through all callbacks.
        self.trainer.strategy.pre_backward(loss)
        loss.backward()
        if self.max_gradient_norm:
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            nn.utils.clip_grad_norm_(weights, self.max_gradient_norm)
        optimizer.step()

    def configure_optimizers(self) -> list[Optimizer]:
        return [self._make_optimizer("discriminator"), self._make_optimizer("generator")]

    def _make_optimizer(self, name: str) -> Optimizer:
        try:
            optimizer = self.make_optimizers[name](getattr(self, name).parameters())
        except ValueError as error:  # PyTorch names the setting, but not the network
            raise ValueError(f"optimizer.{name}: {error}") from error
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]  # PyTorch's own name for it
            if self.beta2_schedule:
                check_beta2(self.beta2_schedule, group, f"optimizer.{name}")
                group["initial_betas"] = group["betas"]
        return optimizer

    @property
    def sampling_generator(self) -> nn.Module:
        """The generator that makes samples: the averaged one if there is one."""
        return self.ema.generator if self.ema and self.ema.generator is not None else self.generator

    @torch.no_grad()
    def sample(self, num: int, seed: int = 0, labels: Tensor | None = None) -> Tensor:
        """Draw images from the averaged generator if there is one, else from the generator.

        The generator is in evaluation mode: an image depends on its z and label, not on the rest of the batch.

        Args:
            labels: (num,) int64, the class of each image; None: round-robin over all classes. For a conditional
                generator only.

        Returns:
            (num, C, H, W) float32 in [-1, 1]. The first images do not depend on num, nor any image on the device.

        Raises:
            ValueError: if num or seed is not such a number, labels are not of that kind, or the generator is not
                conditional.
        """
        for key, value, least in ("num", num, 1), ("seed", seed, 0):
            if not isinstance(value, Integral) or value < least:
                raise ValueError(f"{key}={value} must be a whole number, {least} or more")
        return self.generate(torch.cat(list(draw_latents(num, self.latent_dim, seed))).to(self.device), labels)

    def on_validation_model_zero_grad(self) -> None:
        """Keep the gradients, which Lightning would drop: a checkpoint after a validation needs their norm."""

    def validation_step(self, batch: tuple[int, int], batch_idx: int) -> dict[str, Any]:
        """Samples to score: the first `size` samples of block `block`, given as `batch = (block, size)`."""
        block, size = batch
        images, labels = self.sample_block(block, size)
        return {"block": block, "images": images, "labels": labels}

    def sample_block(self, block: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor | None]:
        """The first samples of a block, and their classes, which go round-robin over all blocks."""
        labels = self.conditioning.in_turn(size, start=block * BLOCK_SIZE)
        return self.sample(size, block_seed(block, seed), labels), labels

    @torch.no_grad()
    def generate(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images of the given latents, as `sample` makes them: (N, Z) -> (N, C, H, W) in [-1, 1]."""
        if labels is None:
            labels = self.conditioning.in_turn(len(z))
        else:
            self.conditioning.check(labels, len(z))
        dtype = next(self.sampling_generator.parameters()).dtype
        labels = None if labels is None else labels.to(z.device)
        return call_in_eval_mode(self.sampling_generator, z.to(dtype), labels)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gan_lightning"] = {
            "version": CHECKPOINT_VERSION,
            "latent_dim": self.latent_dim,
            "num_classes": self.conditioning.num_classes,
            "networks": self.networks,
            "averaged": self.ema is not None,
        }
