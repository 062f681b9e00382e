"""Random numbers as a pure function of seed, name and index.

A generator that can make any row by itself needs no state: the same row comes out whatever chunk it is made in,
and a user's hundredth behaviour is had without the ninety-nine before it. The mixer is SplitMix64 (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", 2014).
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(bits: Bits) -> Bits:
    """Scrambles 64-bit words, one to one, any shape."""
    bits = bits + _GOLDEN
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))


class Stream:
    """An endless table of random numbers, addressed by integers and fixed by `seed` and `name`."""

    def __init__(self, seed: int, name: str):
        digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
        self._key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)

    def bits(self, *index: npt.ArrayLike) -> Bits:
        """64 random bits for each address; the integer arrays in `index` are broadcast against each other."""
        bits = self._key
        for part in index:
            bits = mix(bits + np.asarray(part).astype(np.uint64))
        return bits

    def uniform(self, *index: npt.ArrayLike) -> Floats:
        """Uniform in [0, 1), one for each address."""
        return _unit(self.bits(*index))

    def normal(self, *index: npt.ArrayLike) -> Floats:
        """Standard normal, one for each address (Box and Muller, 1958)."""
        bits = self.bits(*index)
        radius = np.sqrt(-2.0 * np.log1p(-_unit(bits)))
        return radius * np.cos(2.0 * math.pi * _unit(mix(bits)))


def _unit(bits: Bits) -> Floats:
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def pick(cumulative: Floats, uniform: Floats) -> Ints:
    """Indices drawn from a distribution given by its cumulative shares [n] (the last is 1)."""
    return np.minimum(np.searchsorted(cumulative, uniform, side="right"), len(cumulative) - 1)


def zipf_rank(uniform: Floats, size: npt.ArrayLike, exponent: float, offset: float) -> Ints:
    """Ranks in [0, size) with weights about (rank + offset)^-exponent (Zipf-Mandelbrot).

    The rank is the whole part of a continuous power law, so it has a closed form: no table, any size.
    """
    size = np.asarray(size, dtype=np.float64)
    if exponent == 1.0:
        point = offset * np.power((size + offset) / offset, uniform)
    else:
        power = 1.0 - exponent
        low, high = offset**power, (size + offset) ** power
        point = (low + uniform * (high - low)) ** (1.0 / power)
    return np.clip(point - offset, 0, size - 1).astype(np.int64)


def zipf_share(rank: npt.ArrayLike, size: npt.ArrayLike, offset: float) -> Floats:
    """The probability that `zipf_rank` with exponent 1 gives to `rank`."""
    rank, size = np.asarray(rank, dtype=np.float64), np.asarray(size, dtype=np.float64)
    return np.log1p(1.0 / (rank + offset)) / np.log((size + offset) / offset)


class Scatter:
    """A fixed one-to-one shuffle of 0..size-1, so that an id says nothing about its rank."""

    def __init__(self, size: int, seed: int, name: str):
        if size < 1:
            raise ValueError(f"Expected a size of at least 1. Received: {size}")
        factor, self._shift = (int(x) % size for x in Stream(seed, f"scatter/{name}").bits(np.arange(2)))
        while math.gcd(factor, size) != 1:
            factor += 1
        self._factor, self._size = factor, size

    def __call__(self, index: Ints) -> Ints:
        return (index * self._factor + self._shift) % self._size
