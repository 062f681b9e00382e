"""`python -m easyrec_lite.checkpoints`: what there is to go back to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easyrec_lite._checkpoint_table import main
from easyrec_lite.checkpoints import Checkpoint, NumpyTensor, save

NOW = 1_800_000_000


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """Four checkpoints, the third damaged; windows, versions and alarms of theirs."""
    kept = [_save(tmp_path, step, {"auc": 0.7 + step / 1000} if step != 20 else {}) for step in (10, 20, 30, 40)]
    (kept[2].path / "manifest.json").write_text("{")
    _write(
        tmp_path / "metrics.jsonl",
        {"step": 9, "kind": "prequential", "window": {"to_row": 900}, "rows": 900, "auc": 0.61, "running_auc": 0.6},
        {"step": 9, "kind": "train", "loss": 0.3},
        {"step": 20, "kind": "prequential", "window": {"to_row": 2000}, "auc": 0.62, "gauc": None},
        {"step": 41, "kind": "prequential", "window": {"to_row": 4100}, "auc": 0.63},
    )
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 42, "kind": "prequen')
    _write(
        tmp_path / "published.jsonl",
        {"version": 100, "step": 10, "path": "published/100", "fingerprint": kept[0].fingerprint},
        {"version": 101, "step": 20, "path": "published/101", "fingerprint": kept[1].fingerprint},
        {"version": 102, "step": 20, "path": "published/102", "fingerprint": kept[1].fingerprint},
        {"version": 103, "step": 40, "path": "published/103", "fingerprint": "that of another run"},
    )
    (tmp_path / "published" / "101").mkdir(parents=True)
    (tmp_path / "published" / "102.taken_back").mkdir()
    _write(
        tmp_path / "alarms.jsonl",
        {"kind": "alarm", "id": "5-auc_fall-", "time": "2001-01-01T00:00:00+00:00", "step": 5},
        {"kind": "alarm", "id": "35-label_mean-clk", "time": kept[3].manifest["time"], "step": 35},
        {"kind": "decision", "decision": "skip", "time": "2999-01-01T00:00:00+00:00", "step": 30},
        {"kind": "alarm", "id": "50-label_mean-clk", "time": "2999-01-01T00:00:00+00:00", "step": 50},
    )
    return tmp_path


def _save(model_dir: Path, step: int, metrics: dict[str, float]) -> Checkpoint:
    tensors = [NumpyTensor("weights", np.full(1000, step, np.float64))]
    state = {"rows": step * 100, "event_time": NOW + step} if step != 10 else {}
    return save(model_dir, step, tensors, state=state, metrics=metrics)


def _write(path: Path, *records: dict[str, Any]) -> None:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def test_table(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model_dir)]) == 0
    out, err = capsys.readouterr()
    title, header, rule, *lines = out.splitlines()
    assert title == f"Checkpoints of {model_dir}"
    assert [column.strip() for column in header.split("  ") if column.strip()] == [
        "step", "rows", "event time", "written", "MB", "auc", "prequential auc", "published", "alarms since"
    ]  # fmt: skip
    widths = [len(part) for part in rule.split("  ")]
    cells = []
    for line in lines:
        starts = [sum(widths[:place]) + 2 * place for place in range(len(widths))]
        cells.append([line[start : start + width].strip() for start, width in zip(starts, widths, strict=True)])
    assert [[cell for place, cell in enumerate(row) if place != 3] for row in cells] == [
        ["10", "-", "-", "0", "0.71", "0.61", "100 (removed)", "2"],
        ["20", "2,000", "2027-01-15 08:00:20", "0", "-", "0.62", "101, 102 (taken back)", "2"],
        ["30", "damaged", "-", "-", "-", "-", "-", "-"],
        ["40", "4,000", "2027-01-15 08:00:40", "0", "0.74", "0.62", "-", "1"],
    ]
    assert "step-000000000030" in err
    assert "not JSON" in err
    assert "damaged" in err


def test_json(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(model_dir), "--json"]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["step"] for entry in entries] == [10, 20, 30, 40]
    second = entries[1]
    assert second.pop("time").startswith("20")
    assert second == {
        "step": 20,
        "path": str(model_dir / "checkpoints" / "step-000000000020"),
        "rows": 2000,
        "event_time": NOW + 20,
        "bytes": second["bytes"],
        "metrics": {},
        "prequential": {"to_row": 2000, "auc": 0.62},
        "published": [{"version": 101, "state": "there"}, {"version": 102, "state": "taken back"}],
        "alarms_since": ["35-label_mean-clk", "50-label_mean-clk"],
    }
    assert second["bytes"] > 8000
    assert set(entries[2]) == {"step", "path", "damaged"}
    assert entries[3]["alarms_since"] == ["50-label_mean-clk"]


def test_a_run_that_recorded_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _save(tmp_path, 20, {})
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("name", "found"), [("there", "no checkpoint"), ("elsewhere", "no such directory")])
def test_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, found: str) -> None:
    (tmp_path / "there").mkdir()
    assert main([str(tmp_path / name)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path / name}: found {found}; expected the model_dir of a training")
    assert "save_checkpoints" in err


def test_it_does_not_load_tensorflow(tmp_path: Path) -> None:
    _save(tmp_path, 20, {})
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['checkpoints', {str(tmp_path)!r}]\n"
        "try: runpy.run_module('easyrec_lite.checkpoints', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
