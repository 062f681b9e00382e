"""The sample spaces fit the sample configs that they are named after."""

from __future__ import annotations

from pathlib import Path

import pytest

from easyrec_lite._runs import CHECKS
from easyrec_lite.tuning import BaseConfig, read_space
from easyrec_lite.tuning.space import _with

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.mark.parametrize("path", sorted((SAMPLES / "spaces").glob("*.config")), ids=lambda path: path.stem)
def test_every_option_makes_a_config(path: Path) -> None:
    base = BaseConfig(SAMPLES / "configs" / path.name, checks=CHECKS)
    space = read_space(path)
    base.check(space)
    for choice in space.choices:
        for value, _ in choice.samples:
            *_, values = _with(space, choice, value)
            assert base.load(base.edits(space, values)).message.features
