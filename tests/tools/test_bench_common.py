import dataclasses
import json
import os
import time

import numpy as np
import pytest

from tools.bench import _common
from tools.bench._common import BenchError, Spread


def test_spread_has_the_median_and_the_quartiles():
    assert Spread.of([5, 1, 4, 2, 3]) == Spread(3.0, 2.0, 4.0, 5)
    assert Spread.of([7]) == Spread(7.0, 7.0, 7.0, 1)
    assert Spread.of([0.001, 0.002, 0.003]).scaled(1e3).text(1) == "2.0 (1.5 .. 2.5)"
    with pytest.raises(ValueError, match="one measurement"):
        Spread.of([])


def test_mean_and_sample_deviation():
    assert _common.mean_and_deviation([1.0, 3.0]) == pytest.approx((2.0, np.sqrt(2.0)))
    mean, deviation = _common.mean_and_deviation([4.0])
    assert mean == 4.0
    assert np.isnan(deviation)


def test_results_are_kept_with_properties_and_the_machine(tmp_path):
    @dataclasses.dataclass
    class Part:
        value: float

        @property
        def twice(self) -> float:
            return 2 * self.value

    path = tmp_path / "result.json"
    _common.keep(path, "some", {"parts": [Part(1.5)], "spread": Spread.of([1]), "number": np.float32(0.5)})
    record = json.loads(path.read_text())
    assert record["benchmark"] == "some"
    assert record["machine"]["cpus"] == os.cpu_count()
    assert record["results"] == {
        "parts": [{"value": 1.5, "twice": 3.0}],
        "spread": {"median": 1.0, "low": 1.0, "high": 1.0, "count": 1},
        "number": 0.5,
    }
    _common.keep(None, "some", {})


def test_a_failed_process_is_told_with_its_output():
    assert _common.python(["-c", "print('fine')"]) == "fine\n"
    with pytest.raises(BenchError, match=r"(?s)ended with code 3.*so it goes"):
        _common.python(["-c", "import sys; print('so it goes', file=sys.stderr); sys.exit(3)"])


def test_a_call_in_its_own_process():
    assert _common.in_own_process(os.getpid) != os.getpid()


def test_the_last_evaluation_of_a_journal(tmp_path):
    journal = tmp_path / "metrics.jsonl"
    journal.write_text('{"step": 1, "kind": "train", "loss": 1}\n')
    with pytest.raises(BenchError, match="expected an evaluation"):
        _common.last_evaluation(journal)
    with journal.open("a") as file:
        file.write('{"step": 5, "kind": "evaluation", "auc": 0.5}\n{"step": 9, "kind": "evaluation", "auc": 0.75}\n')
    assert _common.last_evaluation(journal) == {"step": 9, "auc": 0.75}


def test_waiting_ends_when_the_process_rests(monkeypatch):
    cpu = iter([0.0, 0.05, 0.05, 0.09, 0.09, 0.0901])  # busy, busy, at rest
    monkeypatch.setattr(time, "process_time", lambda: next(cpu))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert _common.wait_until_idle(window=0.05)


def test_waiting_gives_up(monkeypatch):
    clock, cpu = iter(range(100)), iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(time, "process_time", lambda: next(cpu))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert not _common.wait_until_idle(timeout=5)


def test_the_peak_is_in_bytes():
    assert 1 << 24 < _common.peak_bytes() < 1 << 40
