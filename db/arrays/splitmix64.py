"""SplitMix64 (Steele, Lea, Flood 2014): 64-bit numbers that look random, the same on every machine and version."""

import numpy as np

from db.arrays.types import UInt64Array

GAMMA = np.uint64(0x9E3779B97F4A7C15)
"""What the generator adds to its state for each number: number n of seed 0 is `splitmix64((n - 1) * GAMMA)`."""


def splitmix64(state: UInt64Array) -> UInt64Array:
    """The number that follows each of these states. Arithmetic wraps at 64 bits."""
    x = state + GAMMA
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
