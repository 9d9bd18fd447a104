"""One rule for randomness: every draw of iteration t comes from generators seeded with (seed, t).

So a run resumes exactly without storing any generator's state, and watching a run cannot change it.
"""

import numpy as np


def derive_seed(*parts: int) -> int:
    """Mix whole numbers >= 0 into one 64-bit seed; neighbouring inputs give unrelated seeds (NumPy's SeedSequence)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
