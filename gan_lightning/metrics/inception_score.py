"""Does each sample show a clear class, and do the samples show all classes?"""

from torch import Tensor


def inception_score(logits: Tensor) -> float:
    """Inception score, on the judge's labels. Salimans et al. 2016. https://arxiv.org/abs/1606.03498

    exp E_x[KL(p(y|x) || p(y))],   p(y) = E_x[p(y|x)]

    Over all samples at once: the usual mean over ten parts depends on the order and number of samples (Barratt &
    Sharma 2018). Values in papers use Inception's 1,000 classes and are not comparable.

    Args:
        logits: (N, K) float, of a classifier.

    Returns:
        From 1 (all samples of one class, or no clear one) to K.
    """
    log_p = logits.double().log_softmax(dim=1)
    p = log_p.exp()
    log_marginal = p.mean(dim=0).log()
    # KL with 0 log 0 = 0: where p underflows to 0, log_p is still finite, but log_marginal may be -inf.
    divergence = (p * (log_p - log_marginal.clamp(min=-1e4))).sum(dim=1)
    return divergence.mean().exp().item()
