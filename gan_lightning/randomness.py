"""One rule for randomness: every draw of iteration t comes from generators seeded with (seed, t).

So a run resumes exactly without storing any generator's state, and watching a run cannot change it.
"""

import numpy as np

BLOCK_SIZE = 500  # samples to be scored that are drawn from one seed


def derive_seed(*parts: int) -> int:
    """Mix whole numbers >= 0 into one 64-bit seed; neighbouring inputs give unrelated seeds (NumPy's SeedSequence)."""
    # The count first: SeedSequence pads with zeros, so that (s,) and (s, 0) would be one.
    return int(np.random.SeedSequence([len(parts), *parts]).generate_state(1, np.uint64)[0]) >> 1


def block_seed(block: int, seed: int = 0) -> int:
    """Of the noise of a block of samples to be scored. A training's evaluations draw those of seed 0."""
    return derive_seed(seed, block) if seed else derive_seed(block)
