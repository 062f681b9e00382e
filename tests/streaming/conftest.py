"""Small runs on a stream of rows."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The small configs, rows and runs are shared with the tests of the models and of training.
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from training_runs import write_rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows to train and evaluate on."""
    directory = tmp_path_factory.mktemp("rows")
    write_rows(directory)
    return directory
