"""The load test's own arithmetic, and its changes of versions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tools.bench._serving_traffic import Answer, _difference
from tools.bench.serving_load import Publisher, Result, Swap, Times


def answer(at: float, seconds: float = 0.01, version: int = 2, problem: str = "") -> Answer:
    return Answer(at, seconds, "grpc", version, problem)


def test_times() -> None:
    times = Times.of([answer(0, seconds / 1000) for seconds in range(1, 102)])
    assert (times.count, times.p50, times.p99, times.most) == (101, 51, pytest.approx(100), 101)
    assert math.isnan(Times.of([]).p50)


def test_requests_near_a_swap() -> None:
    # Version 3 is put there at 100 and answers first at 104.
    answers = [answer(at / 2, version=2 if at < 208 else 3) for at in range(180, 240)]
    result = Result(answers, [Swap(100.0, 3)], [], 0)
    assert result.delays == {100.0: pytest.approx(4.01)}
    assert result.around(result.swaps[0]).count == len([a for a in answers if 98 <= a.at <= 106.01])
    assert result.away().count == len(answers) - result.around(result.swaps[0]).count
    unseen = Result(answers, [Swap(100.0, 9)], [], 0)
    assert unseen.delays == {}
    assert unseen.around(unseen.swaps[0]).count == len([a for a in answers if a.at >= 98])


@pytest.mark.parametrize(("sizes", "bounded"), [([100, 140, 141], True), ([100, 110, 140], False), ([100, 200], True)])
def test_memory_between_swaps(sizes: list[int], bounded: bool) -> None:
    swaps = [Swap(10.0 * place, place) for place in range(len(sizes))]
    memory = [(10.0 * place + second, size * 10**6) for place, size in enumerate(sizes) for second in range(1, 10)]
    result = Result([], swaps, memory, 0)
    assert result.periods() == sizes
    assert result.bounded() is bounded


def test_answers_that_are_wrong() -> None:
    expected = {"probs": np.array([0.5, 0.25])}
    assert _difference({"probs": np.array([0.5, 0.250001])}, expected) == ""
    assert _difference({"probs": np.array([0.5, 0.26])}, expected) == "wrong: probs differs by 0.01"
    assert _difference({"logits": np.array([0.5, 0.25])}, expected) == "wrong: outputs ['logits']"
    result = Result([answer(0), answer(1, problem="failed: x")], [], [], 0)
    assert [found.at for found in result.problems()] == [1]


def test_versions_in_turn(tmp_path: Path) -> None:
    exports = tmp_path / "a", tmp_path / "b"
    for path in exports:
        path.mkdir()
        (path / "name").write_text(path.name)
    model_dir = tmp_path / "served"
    model_dir.mkdir()
    publisher = Publisher(model_dir, exports)
    newest = []
    for _ in range(6):
        publisher.change()
        versions = sorted(int(path.name) for path in model_dir.iterdir())
        assert len(versions) <= 2
        newest.append(versions[-1])
        assert (model_dir / str(versions[-1]) / "name").read_text() == "ab"[versions[-1] % 2]
    assert newest == [2, 3, 4, 5, 4, 6]
    assert [(swap.version, swap.taken_back) for swap in publisher.swaps] == [
        (2, False), (3, False), (4, False), (5, False), (4, True), (6, False),
    ]  # fmt: skip
