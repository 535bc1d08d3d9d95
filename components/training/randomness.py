"""Random numbers as functions of what they are for: whatever is random in a training is seeded here.

SplitMix64's output function (Steele, Lea, Flood, Fast splittable pseudorandom number generators, 2014) as a hash: an example's
numbers depend neither on its rank nor on its micro-batch, and are made on the device where they are used.
"""

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # int64 arithmetic wraps around, as the hash wants it
MIX = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)

CHOICE, NOISE, ORDER, DROPOUT, NEW_LAYERS = 1, 2, 3, 4, 5
MASKS, LABELS, DEPTH = 16, 24, 25
"""Purposes: numbers of different purposes have nothing to do with each other."""


def scramble(bits: Tensor) -> Tensor:
    """SplitMix64's output function, elementwise on int64."""
    bits = (bits ^ shift(bits, 30)) * MIX[0]
    bits = (bits ^ shift(bits, 27)) * MIX[1]
    return bits ^ shift(bits, 31)


def shift(bits: Tensor, count: int) -> Tensor:
    """Logically to the right by `count`: torch shifts the sign in, here zeros are wanted."""
    return (bits >> count) & (2 ** (64 - count) - 1)


def key(seed: int, purpose: int, update: int, row: Tensor, position: Tensor | None = None) -> Tensor:
    """A random int64 for each row, and where they are given for each of its positions, at this update.

    Args:
        row: int64 of any shape.
        position: int64, from 1 on; broadcast against `row`.
    """
    hashed = torch.zeros_like(row)
    for number in (purpose, seed, update, row):
        hashed = scramble(hashed + number + GOLDEN)
    return hashed if position is None else scramble(hashed + position * GOLDEN)


def generator_seed(seed: int, purpose: int, update: int = 0, row: int = 0) -> int:
    """For one of torch's own generators, of which the CPU's uses 32 bits.

    The order of an epoch (`update` is its number), dropout (`row` is the rank) and new layers were seeded before there was
    `key`, and keep their numbers: a seed goes on meaning the run that it meant. Every other purpose is a `key`.
    """
    if purpose == NEW_LAYERS:
        return seed
    if purpose == ORDER:
        return seed * 1_000_003 + update
    if purpose == DROPOUT:
        mixed = 0
        for number in (seed, update, row):
            mixed = ((mixed ^ number) * 0x9E3779B1 + 0x7F4A7C15) % 2**32
            mixed ^= mixed >> 15
        return mixed
    return int(key(seed, purpose, update, torch.tensor(row))) % 2**32


def uniform(bits: Tensor) -> Tensor:
    """fp64, uniform on [0, 1), from random int64."""
    return shift(bits, 11).double() * 2.0**-53
