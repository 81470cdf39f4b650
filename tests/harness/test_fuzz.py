"""The fuzz targets on their seeds, on what was found once, and on a few thousand inputs of chance."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest

from fuzz import mutate
from fuzz.targets import TARGETS

CASES = sorted((Path(__file__).parents[1] / "fuzz" / "cases").iterdir())


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_found_once(case):
    """An input that broke a promise once does not any more."""
    TARGETS[case.name.partition("-")[0]].run(case.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_promises(name):
    """Each target keeps its promise on its seeds and on inputs near them."""
    target = TARGETS[name]
    for data in [*target.seeds, b"", *islice(near(target), 20 * target.share)]:
        target.run(data)


def near(target):
    """Inputs near a target's seeds, the same at each run."""
    return mutate.inputs(target.seeds, target.words, random.Random(1))
