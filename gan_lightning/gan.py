"""Algorithm 1 of Goodfellow et al. 2014 as a LightningModule. https://arxiv.org/abs/1406.2661

Shapes: B images of this device's share of the batch, Z latent, C channels, H height, W width.
"""

import inspect
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
from gan_lightning.noise import BLOCK_SIZE, block_seed, derive_seed, draw
from gan_lightning.penalties import Constraint, Penalty, check_combination
from gan_lightning.schedules import Schedule, check_beta2

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
Step = dict[str, Tensor]

ADAM: MakeOptimizer = partial(torch.optim.Adam, lr=2e-4, betas=(0.5, 0.999))  # DCGAN, section 4
CHECKPOINT_VERSION = 1


class GAN(LightningModule):
    """A generator and a discriminator that are trained against each other.

    An iteration is one batch of real images: one update of the discriminator, and after every `n_critic` of them
    one of the generator. `global_step` counts iterations.

    Args:
        generator: called as `generator(z, labels)`, (B, Z) -> (B, C, H, W) in [-1, 1].
        discriminator: called as `discriminator(images, labels)`, (B, C, H, W) in [-1, 1] -> (B,) logits. One that
            classifies too returns (logits, class logits).
        loss: what the two minimise, see `losses.py`.
        conditioning: what the labels are used for, see `conditioning.py`; None: for nothing, networks get None.
        penalty: what the discriminator pays for a steep slope, see `penalties.py`.
        constraint: what is done to the discriminator's weights after each of its steps, see `penalties.py`.
        augment: what is done to every image before the discriminator sees it, see `augment.py`.
        ema: the averaged generator, which then serves for samples.
        generator_optimizer, discriminator_optimizer: parameters -> optimizer.
        latent_dim: Z.
        schedule: how the learning rates change over the run, see `schedules.py`; None: not at all.
        beta2_schedule: how `1 - beta2` of Adam does, the weight of the newest squared gradient in its average.
        max_gradient_norm: a longer gradient of D or of G is cut down to this length; None: no limit.
        n_critic: updates of D for one of G; k in the paper.
        reuse_fake: G's turn judges the images of D's turn again, instead of images from fresh noise.
        seed: everything random in iteration t follows from (seed, t).
        networks: the config that builds the two networks, kept in checkpoints so that they can be loaded alone.

    Raises:
        ValueError: if latent_dim or n_critic is below 1, max_gradient_norm is not positive, a network does not take
            labels or knows another number of classes than the conditioning, or the constraint does not go with the
            discriminator.
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
        for key, value in {"latent_dim": latent_dim, "n_critic": n_critic}.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{key}={value} must be a whole number, 1 or more")
        # What an option `none` stands for is empty.
        conditioning, penalty, constraint, augment = (
            conditioning or None,
            penalty or None,
            constraint or None,
            augment or None,
        )
        parts = {
            "loss=gan_lightning.losses.NonSaturating()": (loss, hasattr(loss, "discriminator")),
            "conditioning=gan_lightning.conditioning.Conditioning(10)": (
                conditioning,
                hasattr(conditioning, "in_turn"),
            ),
            "penalty=gan_lightning.penalties.R1(2.4)": (penalty, callable(penalty)),
            "constraint=gan_lightning.penalties.WeightClipping()": (constraint, callable(constraint)),
            "augment=gan_lightning.augment.DiffAugment()": (augment, callable(augment)),
            "ema=gan_lightning.ema.EMA()": (ema, isinstance(ema, EMA)),
        }
        for example, (part, fits) in parts.items():
            if part is not None and not fits:
                raise ValueError(f"{example.partition('=')[0]}={part!r} cannot be used; write {example}, or None")
        if max_gradient_norm is not None and max_gradient_norm <= 0:
            raise ValueError(f"max_gradient_norm={max_gradient_norm} must be positive, or null for no limit")
        self.automatic_optimization = False
        self.generator = generator
        self.discriminator = discriminator
        self.loss = loss or NonSaturating()
        self.conditioning = conditioning or Conditioning()
        for name, network in {"generator": generator, "discriminator": discriminator}.items():
            check_call(network, name)
            known, num_classes = getattr(network, "num_classes", None), self.conditioning.num_classes
            if known not in (None, num_classes):
                raise ValueError(
                    f"model.{name}.num_classes={known} and conditioning.num_classes={num_classes} must be the same; "
                    f"in Python: GAN(..., conditioning=Conditioning({known}))"
                )
        self.penalty = penalty
        self.constraint = constraint
        check_combination(discriminator, self.loss, penalty, constraint)
        self.augment = augment
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
        self.noise, self.chance = torch.Generator(), torch.Generator()  # of z; of penalties and augmentation

    def on_fit_start(self) -> None:
        wanted = self.conditioning.num_classes
        known = getattr(self.trainer.datamodule, "num_classes", wanted)
        if wanted not in (0, known):
            raise ValueError(
                f"conditioning.num_classes={wanted} and data.num_classes={known} must be the same; in Python: "
                f"ImageDataModule.from_tensors(images, labels, num_classes={wanted}); without labels: conditioning=none"
            )
        self.check_shapes(getattr(self.trainer.datamodule, "image_shape", None))

    @torch.no_grad()
    def check_shapes(self, image_shape: tuple[int, ...] | None) -> None:
        """Show both networks two images, to see that they are made for each other and for those of the data.

        Raises:
            ValueError: if not; PyTorch's own error, in the middle of a step, would speak of matrices.
        """
        labels = self.conditioning.in_turn(2)
        labels = None if labels is None else labels.to(self.device)
        z = torch.zeros(2, self.latent_dim, device=self.device, dtype=next(self.generator.parameters()).dtype)
        key = f"latent_dim={self.latent_dim}"
        way_out = "build the generator with the latent_dim that the GAN has"
        try:
            fake = evaluate(uncompiled(self.generator), z, labels)
            shape = tuple(image_shape or fake.shape[1:])
            key, way_out = f"data.image_shape={list(shape)}", f"build both networks with image_shape={shape}"
            if fake.shape[1:] != shape:
                raise ValueError(f"{key}: the generator makes images of {list(fake.shape[1:])}; {way_out}")
            evaluate(uncompiled(self.discriminator), fake, labels)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValueError(f"{key} is not what the networks take ({error}); {way_out}") from error

    def on_train_start(self) -> None:
        schedules = {
            "schedule": self.schedule,
            "optimizer.beta2_schedule": self.beta2_schedule,
            "penalty.schedule": self.penalty.schedule if self.penalty else None,
        }
        for key, schedule in schedules.items():
            try:
                self.factor(schedule)
            except ValueError as error:  # it does not fit the length of the run
                raise ValueError(f"{key}.{error}") from error

    def training_step(self, batch: tuple[Tensor, Tensor | None], batch_idx: int) -> Step:
        """One iteration on (B, C, H, W) images in [-1, 1]; returns its losses and logits."""
        if isinstance(batch, Tensor) or len(batch) != 2:
            raise ValueError(
                "a batch must be (images, labels); in Python: trainer.fit(gan, ImageDataModule.from_tensors(images))"
            )
        real, classes = batch
        labels = classes if self.conditioning.num_classes else None  # generated images are of the real ones' classes
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
        """Algorithm 1. Nothing in it makes the host wait for the device, see `callbacks/cuda_graph.py`."""
        discriminator_optimizer, generator_optimizer = optimizers
        # Real and generated images go through D in passes of their own: BatchNorm must not mix their statistics.
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
        """D's logits, and what its classifier adds to the loss of whoever is up: 0 where it has none."""
        if self.augment:
            images = self.augment(images, self.sample_uniform(images, self.augment.num_draws))
        return self.conditioning.split(self.discriminator(images, labels), labels)

    def logits(self, images: Tensor, labels: Tensor | None) -> Tensor:
        return self.discriminate(images, labels)[0]

    def seed_iteration(self) -> None:
        """Seed what iteration t draws: what goes by the batch for all devices alike, dropout for each its own."""
        if self.noise.device != self.device:
            self.noise, self.chance = torch.Generator(self.device), torch.Generator(self.device)
        self.noise.manual_seed(derive_seed(self.seed, self.global_step))
        self.chance.manual_seed(derive_seed(self.seed, self.global_step, 0))
        own = derive_seed(self.seed, self.global_step, 1 + self.global_rank)
        torch.default_generator.manual_seed(own)  # torch.manual_seed seeds every kind of device: 0.7 ms, this 3 us
        if self.device.type == "cuda":
            torch.cuda.manual_seed(own)

    def follow_schedule(self) -> None:
        """Set learning rates and beta2 of both optimizers for this iteration; they follow from its number alone."""
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
        """What a schedule makes of its value in this iteration."""
        return schedule(self.global_step, self.trainer.estimated_stepping_batches) if schedule else 1.0

    def ema_weight(self, batch_size: int) -> float:
        """What G's weights count in an average that is updated in this iteration."""
        if not self.ema:
            return 0.0
        return self.ema.weight(batch_size * self.n_critic, batch_size * (self.global_step + 1))

    def sample_latent(self, real: Tensor) -> Tensor:
        """z ~ N(0, I) for as many images as `real`.   # (B, Z)"""
        return self._draw(torch.randn, real, self.latent_dim, self.noise, real.dtype)

    def sample_uniform(self, images: Tensor, num: int) -> Tensor:
        """Numbers in [0, 1) for as many images, for what chance has a part in besides z.   # (B, num)"""
        dtype = torch.promote_types(images.dtype, torch.float32)  # bfloat16 knows 256 numbers in [0, 1)
        return self._draw(torch.rand, images, num, self.chance, dtype)

    def _draw(
        self, draw: Callable[..., Tensor], images: Tensor, num: int, generator: torch.Generator, dtype: torch.dtype
    ) -> Tensor:
        """This device's rows of the whole batch's numbers, so that several devices draw what one would."""
        size = len(images)
        whole = draw(size * self.trainer.world_size, num, generator=generator, device=images.device, dtype=dtype)
        return whole[size * self.global_rank :][:size]

    def descend(self, optimizer: LightningOptimizer | Optimizer, loss: Tensor) -> None:
        """Take one step down the loss's gradient. The gradient stays, for those who log its norm."""
        optimizer.zero_grad()
        # What manual_backward does, without two rounds of hooks through all callbacks.
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
        except ValueError as error:  # PyTorch names the setting but not whose it is
            raise ValueError(f"optimizer.{name}: {error}") from error
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]  # PyTorch's own name for it
            if self.beta2_schedule:
                check_beta2(self.beta2_schedule, group, f"optimizer.{name}")
                group["initial_betas"] = group["betas"]
        return optimizer

    @property
    def sampler(self) -> nn.Module:
        """The generator that samples come from: the averaged one where there is one."""
        return self.ema.generator if self.ema and self.ema.generator is not None else self.generator

    @torch.no_grad()
    def sample(self, num: int, seed: int = 0, labels: Tensor | None = None) -> Tensor:
        """Draw images from the averaged generator where there is one, else from the generator.

        Layers that look at their batch are in evaluation mode: one z gives one image, whatever stands beside it.

        Args:
            labels: (num,) int64, the class of each image; None: all classes in turn. Only of a conditional generator.

        Returns:
            (num, C, H, W) float32 in [-1, 1]; the same for the same seed on every device, whatever num.

        Raises:
            ValueError: if num or seed is no such number, labels are not such, or the generator is not conditional.
        """
        for key, value, least in ("num", num, 1), ("seed", seed, 0):
            if not isinstance(value, Integral) or value < least:
                raise ValueError(f"{key}={value} must be a whole number, {least} or more")
        return self.generate(torch.cat(list(draw(num, self.latent_dim, seed))).to(self.device), labels)

    def on_validation_model_zero_grad(self) -> None:
        """Keep the gradients, which Lightning would drop: checkpoints written after a validation need their norm."""

    def validation_step(self, batch: tuple[int, int], batch_idx: int) -> dict[str, Any]:
        """Samples for whoever scores them: of block number `batch[0]` as many as `batch[1]`."""
        block, size = batch
        images, labels = self.sample_block(block, size)
        return {"block": block, "images": images, "labels": labels}

    def sample_block(self, block: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor | None]:
        """The first samples of a block to be scored, and the classes asked for: over all blocks, each in turn."""
        labels = self.conditioning.in_turn(size, start=block * BLOCK_SIZE)
        return self.sample(size, block_seed(block, seed), labels), labels

    @torch.no_grad()
    def generate(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images of the given latents, as `sample` makes them: (N, Z) -> (N, C, H, W) in [-1, 1]."""
        if labels is None:
            labels = self.conditioning.in_turn(len(z))
        else:
            self.conditioning.check(labels, len(z))
        dtype = next(self.sampler.parameters()).dtype
        return evaluate(self.sampler, z.to(dtype), labels if labels is None else labels.to(z.device))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gan_lightning"] = {
            "version": CHECKPOINT_VERSION,
            "latent_dim": self.latent_dim,
            "num_classes": self.conditioning.num_classes,
            "networks": self.networks,
            "averaged": self.ema is not None,
        }


def evaluate(network: nn.Module, inputs: Tensor, labels: Tensor | None) -> Any:
    """What a network makes of its inputs in evaluation mode; it is left in the one that it was in."""
    was_training = network.training
    network.eval()
    try:
        return network(inputs, labels)
    finally:
        network.train(was_training)


def uncompiled(network: nn.Module) -> nn.Module:
    """What torch.compile was given; a network that was not compiled is its own."""
    return getattr(network, "_orig_mod", network)


def check_call(network: nn.Module, name: str) -> None:
    """Raises ValueError if a network does not take labels beside its input."""
    inputs = {"generator": "z", "discriminator": "images"}[name]
    forward = uncompiled(network).forward
    try:
        inspect.signature(forward).bind(inputs, "labels")
    except TypeError as error:
        raise ValueError(
            f"{name}: {type(network).__name__}.forward{inspect.signature(forward)} is called with the classes as well, "
            f"which are None where there are none; write forward(self, {inputs}, labels=None)"
        ) from error
