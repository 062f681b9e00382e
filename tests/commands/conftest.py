"""One small data set and one trained model for all tests of the commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_runs import SAMPLES, Run, Workspace, command, small, workspace

from tools.data import taobao_like


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated data set in Parquet: 2,000 rows of 300 users and 200 items."""
    directory = tmp_path_factory.mktemp("taobao")
    taobao_like.generate(directory, 2000, eval_rows=500, users=300, items=200, overwrite=True)
    return directory


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """The model directory of a sample config, trained for 12 steps on it, and what the command said."""
    model_dir = tmp_path_factory.mktemp("trained") / "model"
    run = command("train", *small(SAMPLES / "multi_tower_taobao.config", data, model_dir))
    assert run.code == 0, run.err
    return model_dir, run


@pytest.fixture
def work(tmp_path: Path) -> Workspace:
    """A small config in EasyRec's older spelling, with rows; nothing is trained yet."""
    return workspace(tmp_path / "work")


@pytest.fixture(scope="session")
def easyrec(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Run]:
    """The same, trained for 6 steps; tests only read it."""
    work = workspace(tmp_path_factory.mktemp("easyrec"))
    run = work.run("train")
    assert run.code == 0, run.err
    return work, run
