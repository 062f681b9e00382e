"""Tiny exports, each made once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from exports import Exported, make

from easyrec_lite.serving import Predictor


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """An export by the name of its model, with the recommender it was made from."""
    made: dict[tuple[str, ...], Exported] = {}

    def get(model: str, *edits: str, lists: bool = False) -> Exported:
        key = (model, str(lists), *edits)
        if key not in made:
            made[key] = make(tmp_path_factory.mktemp(model), model, *edits, lists=lists, parity_rows=60)
        return made[key]

    return get


@pytest.fixture(scope="session")
def predictor(exported: Callable[..., Exported]) -> Predictor:
    """Over an export whose columns of lists were read as lists."""
    return Predictor(exported("multi_tower", lists=True).path)
