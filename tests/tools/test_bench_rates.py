"""Trainings measured in turn."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest

from easyrec_lite.config import PipelineConfig
from tools.bench._cases import Case, config_of, write_rows
from tools.bench._rates import EDITS, Rate, batches, cpu_ratios, rates_in_turn, ratios

_CASE = dataclasses.replace(Case(), features=4, units=(8,), table_rows=100, batch=16)


def _config(data: Path, edits: tuple[str, ...], folder: Path) -> PipelineConfig:
    return config_of("MultiTower", _CASE, data, folder, (*EDITS, *edits))


@pytest.mark.slow
def test_each_has_its_turn_and_one_that_ends_early_is_told(tmp_path: Path) -> None:
    data = tmp_path / "rows.parquet"
    write_rows(data, dataclasses.replace(_CASE, rows=_CASE.batch * batches(2)))
    builds = {
        "plain": functools.partial(_config, data, ()),
        "one epoch": functools.partial(_config, data, ("data_config.num_epochs=1",)),
    }
    seen: list[str] = []
    rates = rates_in_turn(builds, 2, lambda name, rate: seen.append(name), copies=2)
    assert seen == ["plain", "one epoch"] * 2 + ["one epoch", "plain"] * 2
    assert [len(found) for found in rates.values()] == [4, 4]
    assert all(rate.rows_per_second > 0 and rate.cpu_us > 0 for found in rates.values() for rate in found)

    short = {"ends": functools.partial(_config, data, ("train_config.num_steps=20",))}
    with pytest.raises(RuntimeError, match="ended before everything was measured"):
        rates_in_turn(short, 2, lambda name, rate: None)


def test_ratios() -> None:
    mine, others = [Rate(90.0, 1.0), Rate(100.0, 1.0), Rate(80.0, 1.0)], [Rate(100.0, 1.0)] * 3
    assert ratios(mine, others).median == pytest.approx(0.9)
    slower = [Rate(1.0, 2.0), Rate(1.0, 3.0), Rate(1.0, 4.0)]
    assert cpu_ratios(slower, [Rate(1.0, 2.0)] * 3).median == pytest.approx(1.5)
