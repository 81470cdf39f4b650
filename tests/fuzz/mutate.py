"""Inputs near given ones: bytes flipped, runs cut, doubled and spliced, words of the format put in."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

EDGES = (0, 1, 0x0A, 0x20, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)
LONGEST = 4096


def inputs(seeds: Sequence[bytes], words: Sequence[bytes], chance: random.Random) -> Iterator[bytes]:
    """For ever; now and then an input that was made becomes one to begin from."""
    pool = list(seeds)
    while True:
        data = bytearray(chance.choice(pool))
        for _ in range(chance.choice((1, 1, 2, 3, 5, 9))):
            change(data, pool, words, chance)
        made = bytes(data[:LONGEST])
        yield made
        if chance.random() < 0.02:
            if len(pool) < 400:
                pool.append(made)
            else:
                pool[chance.randrange(len(seeds), len(pool))] = made


def change(data: bytearray, pool: Sequence[bytes], words: Sequence[bytes], chance: random.Random) -> None:
    """One change at a place of chance."""
    at = chance.randint(0, len(data))
    end = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 64)))
    match chance.randrange(8):
        case 0:
            data[at:end] = bytes(chance.randrange(256) for _ in range(end - at))
        case 1:
            data[at:end] = b""
        case 2:
            data[at:at] = data[at:end] * chance.choice((1, 2, 30))
        case 3:
            data[at:at] = bytes((chance.choice(EDGES),))
        case 4 if data:
            data[min(at, len(data) - 1)] ^= 1 << chance.randrange(8)
        case 5 if words:
            data[at : chance.choice((at, end))] = chance.choice(words)
        case 6:
            other = chance.choice(pool)
            begin = chance.randint(0, len(other))
            data[at:end] = other[begin : begin + 40]
        case _:
            data[at:end] = bytes((chance.choice(EDGES),)) * (end - at)
