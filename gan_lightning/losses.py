"""What discriminator (D) and generator (G) minimise, on logits l = log(D / (1 - D)).

Every loss has two methods of one signature, `discriminator(real_logits, fake_logits)` and
`generator(real_logits, fake_logits)`. Logits are float tensors of one shape, (B,); both methods return a
scalar, the mean over the batch. `needs_real_logits` says whether the generator's loss looks at the real
logits; where it does not, D is not run on real images in the generator's turn and gets None for them.
"""

from typing import Protocol

from torch import Tensor
from torch.nn.functional import softplus


class Loss(Protocol):
    """What any loss has."""

    needs_real_logits: bool

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor: ...

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor: ...


class NonSaturating:
    """Non-saturating loss. Goodfellow et al. 2014, section 3. https://arxiv.org/abs/1406.2661

    `L_D = -E[log D(x)] - E[log(1 - D(G(z)))]`,  `L_G = -E[log D(G(z))]`

    Args:
        discriminator_scale: factor on L_D. 1 is the paper's sum of two means; 0.5 their mean, as tutorials
            have it that train D on one labelled batch of real and generated images.
    """

    needs_real_logits = False

    def __init__(self, discriminator_scale: float = 1.0) -> None:
        if discriminator_scale <= 0:
            raise ValueError(f"loss.discriminator_scale={discriminator_scale} must be positive; try 1")
        self.discriminator_scale = discriminator_scale

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        # softplus(-l) = -log(sigmoid(l)),  softplus(l) = -log(1 - sigmoid(l))
        return self.discriminator_scale * (softplus(-real_logits).mean() + softplus(fake_logits).mean())

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return softplus(-fake_logits).mean()


class Minimax(NonSaturating):
    """The two-player minimax game. Goodfellow et al. 2014, equation 1. https://arxiv.org/abs/1406.2661

    L_D as in the non-saturating loss,  `L_G = E[log(1 - D(G(z)))]`. Its gradient vanishes where D rejects
    samples with confidence, which is why the paper trains G with the non-saturating one.
    """

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        return -softplus(fake_logits).mean()  # log(1 - sigmoid(l))
