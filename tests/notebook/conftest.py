"""One small experiment, trained once, for all tests of the notebook face."""

from __future__ import annotations

import pandas as pd
import pytest
from notebook_rows import CONFIG, make_rows

import easyrec_lite as er


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    """2,000 rows to train on."""
    return make_rows(2000, seed=1)


@pytest.fixture(scope="session")
def later() -> pd.DataFrame:
    """800 rows to evaluate on."""
    return make_rows(800, seed=2)


@pytest.fixture(scope="session")
def trained(rows: pd.DataFrame, later: pd.DataFrame) -> er.Experiment:
    """Trained on frames, in a temporary folder; tests only look at it."""
    experiment = er.Experiment(CONFIG, name="small")
    experiment.train(rows, later, progress=False)
    return experiment
