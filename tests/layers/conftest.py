"""What all tests of layers share."""

from __future__ import annotations

import keras
import pytest


@pytest.fixture(autouse=True)
def same_weights() -> None:
    """The layers of a test begin with the same weights in every run."""
    keras.utils.set_random_seed(1)
