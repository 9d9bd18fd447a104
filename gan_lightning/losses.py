"""Losses of the discriminator (D) and the generator (G), on logits l: D's output before any sigmoid.

Every loss has two methods of one signature, `discriminator(real_logits, fake_logits)` and
`generator(real_logits, fake_logits)`. Logits are float tensors of one shape, (B,); both methods return a
scalar, the mean over the batch.
"""

from typing import Protocol

from torch import Tensor
from torch.nn.functional import relu, softplus


class Loss(Protocol):
    """The interface of a loss, with defaults."""

    needs_real_logits: bool = False  # by G's loss; False: it gets None, and D is not run on real images again
    has_probabilities: bool = False  # is sigmoid(l) D's probability that an image is real?
    threshold: float | None = 0.0  # D calls an image real above this logit; None: only differences count

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor: ...

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor: ...


class NonSaturating(Loss):
    """Non-saturating loss. Goodfellow et al. 2014, section 3. https://arxiv.org/abs/1406.2661

    `L_D = -E[log D(x)] - E[log(1 - D(G(z)))]`,  `L_G = -E[log D(G(z))]`,  D = sigmoid(l)

    Args:
        discriminator_scale: factor on L_D. 1 is the paper's sum of two means; 0.5 is their mean, as in tutorials that
            train D on one labelled batch of real and generated images.
        label_smoothing: s, in [0, 0.5). D's target is 1 - s for real images and 0 for generated ones. Salimans et al.
            2016, section 3.4. https://arxiv.org/abs/1606.03498

    Raises:
        ValueError: if discriminator_scale is not positive or label_smoothing out of range.
    """

    has_probabilities = True

    def __init__(self, discriminator_scale: float = 1.0, label_smoothing: float = 0.0) -> None:
        if discriminator_scale <= 0:
            raise ValueError(f"discriminator_scale={discriminator_scale} must be positive; try 1")
        if not 0 <= label_smoothing < 0.5:
            raise ValueError(f"label_smoothing={label_smoothing} must lie in [0, 0.5); try 0.1")
        self.discriminator_scale = discriminator_scale
        self.label_smoothing = label_smoothing

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        # softplus(-l) = -log(sigmoid(l)),  softplus(l) = -log(1 - sigmoid(l)) = softplus(-l) + l
        real_loss = softplus(-real_logits) + self.label_smoothing * real_logits
        return self.discriminator_scale * (real_loss.mean() + softplus(fake_logits).mean())

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return softplus(-fake_logits).mean()


class Minimax(NonSaturating):
    """The two-player minimax game. Goodfellow et al. 2014, equation 1. https://arxiv.org/abs/1406.2661

    L_D as in the non-saturating loss,  `L_G = E[log(1 - D(G(z)))]`. Its gradient vanishes where D rejects
    samples with confidence, which is why the paper trains G with the non-saturating one.
    """

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -softplus(fake_logits).mean()  # log(1 - sigmoid(l))


class LeastSquares(Loss):
    """Least squares GAN, targets 0 and 1. Mao et al. 2017, equation 9. https://arxiv.org/abs/1611.04076

    `L_D = E[(l(x) - 1)^2] / 2 + E[l(G(z))^2] / 2`,  `L_G = E[(l(G(z)) - 1)^2] / 2`
    """

    threshold = 0.5

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return ((real_logits - 1).square().mean() + fake_logits.square().mean()) / 2

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return (fake_logits - 1).square().mean() / 2


class Hinge(Loss):
    """Hinge loss. Lim & Ye 2017, https://arxiv.org/abs/1705.02894; as in Miyato et al. 2018, equations 16 and 17.

    `L_D = E[max(0, 1 - l(x))] + E[max(0, 1 + l(G(z)))]`,  `L_G = -E[l(G(z))]`
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


class Wasserstein(Loss):
    """Wasserstein GAN. Arjovsky et al. 2017, algorithm 1. https://arxiv.org/abs/1701.07875

    `L_D = E[l(G(z))] - E[l(x)]`,  `L_G = -E[l(G(z))]`. L_D has no lower bound unless D's slope is bounded: use a
    penalty, a constraint or spectral normalisation.
    """

    threshold = None

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return fake_logits.mean() - real_logits.mean()

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -fake_logits.mean()


class Relativistic(Loss):
    """Relativistic pairing GAN (RpGAN). Jolicoeur-Martineau 2020. https://arxiv.org/abs/1901.02474

    `L_D = E[softplus(l(G(z)) - l(x))]`,  `L_G = E[softplus(l(x) - l(G(z)))]`, each x paired with one G(z). As in
    R3GAN, Huang et al. 2024, equation 2. https://arxiv.org/abs/2501.05441
    """

    needs_real_logits = True
    threshold = None

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return softplus(fake_logits - real_logits).mean()  # -log(sigmoid(l(x) - l(G(z))))

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        assert real_logits is not None
        return softplus(real_logits - fake_logits).mean()
