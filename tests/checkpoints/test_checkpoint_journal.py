"""Journals survive torn lines and are cut back to a checkpoint; atomic files appear whole."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyrec_lite.checkpoints import Files, Journal, atomic_path, atomic_write_json, atomic_write_text


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.jsonl"
    with Journal(path) as journal:
        journal.append({"step": np.int64(1), "auc": np.float32(0.5), "loss": math.nan, "tags": ("ä", None)})
        journal.append({"step": 2, "flag": True}, sync=True)
    assert path.read_text() == '{"step": 1, "auc": 0.5, "loss": null, "tags": ["ä", null]}\n{"step": 2, "flag": true}\n'
    assert [record["step"] for record in Journal(path).records()] == [1, 2]
    assert list(Journal(tmp_path / "none").records()) == []


def test_the_key_is_required(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a record of m.jsonl needs the key 'step'; received \['loss'\]"):
        Journal(tmp_path / "m.jsonl").append({"loss": 1.0})
    with Journal(tmp_path / "w.jsonl", key="window") as journal:
        journal.append({"window": 3})
        assert journal.truncate_after(2) == 1


def test_truncate_after_drops_later_steps_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Journal(path) as journal:
        for step in (1, 5, 3, 7):
            journal.append({"step": step})
        assert journal.truncate_after(3) == 2
        journal.append({"step": 4})
    assert [record["step"] for record in Journal(path).records()] == [1, 3, 4]
    calls: list[str] = []
    assert Journal(path, files=Files(lambda operation, _: calls.append(operation))).truncate_after(4) == 0
    assert calls == []  # nothing to cut, nothing written
    assert Journal(tmp_path / "none").truncate_after(4) == 0


@given(cut=st.integers(0, 200), size=st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_a_torn_tail_is_dropped(tmp_path_factory: pytest.TempPathFactory, cut: int, size: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "m.jsonl"
    lines = [json.dumps({"step": step, "text": "x" * size}) + "\n" for step in range(3)]
    data = "".join(lines).encode()[: max(0, sum(map(len, lines)) - cut)]
    path.write_bytes(data)
    whole = data.count(b"\n")
    with Journal(path) as journal:
        assert [record["step"] for record in journal.records()] == list(range(whole))
        journal.append({"step": 9})
        assert [record["step"] for record in journal.records()] == [*range(whole), 9]


def test_a_torn_tail_longer_than_a_block_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1}\n' + b"x" * 200_000)
    with Journal(path) as journal:
        journal.append({"step": 2})
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_unreadable_lines_are_warned_about_with_their_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1}\n\0\0\0\n{"other": 2}\n[3]\n{"step": 4}\n{"st')
    assert [record["step"] for record in Journal(path).records()] == [1, 4]
    assert [record.getMessage().split(": ")[0] for record in caplog.records] == [
        f"{path}:{line}" for line in (2, 3, 4, 6)
    ]
    assert Journal(path).truncate_after(9) == 0
    assert path.read_bytes() == b'{"step": 1}\n{"step": 4}\n'


def test_atomic_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.json"
    atomic_write_json(path, {"b": np.float64(0.1), "a": [math.inf]})
    assert path.read_text() == '{\n  "b": 0.1,\n  "a": [\n    null\n  ]\n}\n'
    atomic_write_text(path, "ü")
    assert path.read_bytes() == "ü".encode()

    def fail_half_way() -> None:
        with atomic_path(path) as temporary:
            assert temporary.suffix == ".json"
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert path.read_bytes() == "ü".encode()
    assert [found.name for found in path.parent.iterdir()] == ["x.json"]
