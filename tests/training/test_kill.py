"""A trainer killed with SIGKILL at any instant, and started again, ends in the bits of one that was left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from training_runs import left_behind, write_rows

DRIVER = Path(__file__).parent / "kill_driver.py"
ROOT = DRIVER.parents[2]
PART = 60  # steps between the kills of a chain: three checkpoints

# At the first of these operations in the kill's part of the run; the file's name in its folder.
AT_FILES: list[dict[str, Any]] = [
    {"operation": "make_dir", "name": ".step-"},
    {"operation": "create", "name": "manifest.json"},
    {"operation": "write", "name": ".tmp/", "skip": 9, "torn": True},
    {"operation": "write", "name": "manifest.json", "torn": True},
    {"operation": "sync", "name": "manifest.json"},
    {"operation": "rename", "name": "/.step-"},
    {"operation": "sync_dir", "name": "/checkpoints", "skip": 1},
    {"operation": "remove", "name": ".trash", "skip": 1},
    {"operation": "rename", "name": "statistics.json"},
    {"operation": "write", "name": "metrics.jsonl", "torn": True},
]


def train(rows: Path, model: Path, **order: Any) -> int:
    """Runs the driver; returns its exit code."""
    text = json.dumps({"rows": str(rows), "model": str(model), "resume": True, **order})
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "models"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(DRIVER), text],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def chains() -> list[list[dict[str, Any]]]:
    """Five runs, each killed four times, at random instants and at chosen file operations in turn."""
    rng = random.Random(20)
    at_files = rng.sample(AT_FILES, len(AT_FILES))
    result = []
    for _ in range(5):
        kills: list[dict[str, Any]] = []
        for part in range(4):
            first = part * PART
            if part % 2:
                kills.append({"file": {"step": first + rng.randrange(20), **at_files.pop()}})
            else:
                kills.append({"after": {"step": first + rng.randrange(1, 40), "delay": rng.uniform(0, 0.1)}})
        result.append(kills)
    assert not at_files
    return result


def run_chain(rows: Path, model: Path, kills: list[dict[str, Any]]) -> None:
    for kill in kills:
        assert train(rows, model, **kill) == -signal.SIGKILL, f"not killed: {kill}"
    assert train(rows, model) == 0


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    write_rows(tmp_path)
    lines = (tmp_path / "train.csv").read_text().splitlines(keepends=True)
    lines.insert(50, "x" + lines[50])  # a row that can't be read
    (tmp_path / "train.csv").write_text("".join(lines))
    with ThreadPoolExecutor(2) as pool:
        jobs = {"left alone": pool.submit(train, tmp_path, tmp_path / "left alone")}
        for number, kills in enumerate(chains()):
            jobs[f"chain {number}"] = pool.submit(run_chain, tmp_path, tmp_path / f"chain {number}", kills)
        for job in jobs.values():
            job.result()
    expected = outcome(tmp_path / "left alone")
    assert expected["step"] == 300
    for name in jobs:
        assert outcome(tmp_path / name) == expected, name
        assert not list((tmp_path / name).rglob("*.tmp*"))
        assert not list((tmp_path / name).rglob("*.trash"))


def outcome(model: Path) -> dict[str, Any]:
    """All that a run leaves, but for which of its checkpoints the clock made."""
    found = left_behind(model)
    del found["checkpoints"]
    found["bad rows"] = (model / "bad_rows.jsonl").read_text()
    return found
