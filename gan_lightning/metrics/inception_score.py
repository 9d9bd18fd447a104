"""Are samples of clear classes, and of all of them?"""

from torch import Tensor


def inception_score(logits: Tensor) -> float:
    """Inception score, on the judge's labels. Salimans et al. 2016. https://arxiv.org/abs/1606.03498

    exp E_x[KL(p(y|x) || p(y))],   p(y) = E_x[p(y|x)]

    All samples at once, not the mean of ten parts, which depends on the samples' order and number (Barratt &
    Sharma 2018). Papers' values are on Inception's 1,000 classes and not comparable.

    Args:
        logits: (N, K) float, of a classifier.

    Returns:
        From 1 (all samples the same, or none clear) to K.
    """
    log_p = logits.double().log_softmax(dim=1)
    p = log_p.exp()
    log_marginal = p.mean(dim=0).log()
    # KL with 0 log 0 = 0: where p underflows to 0, log_p is still finite, but log_marginal may be -inf.
    divergence = (p * (log_p - log_marginal.clamp(min=-1e4))).sum(dim=1)
    return divergence.mean().exp().item()
