"""Prequential evaluation by hand: scores and labels go through the graph as in a training step."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tiny import built

from easyrec_lite.models import Batch, Targets
from easyrec_lite.protos import stream_pb2
from easyrec_lite.streaming import Prequential
from easyrec_lite.training import StepsResult

NO_STEPS = StepsResult(0, 0, {}, "")


@dataclasses.dataclass
class Records:
    """A recorder that keeps everything."""

    kept: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def record(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        self.kept.append({"step": step, "kind": kind, **values})


class Rows(NamedTuple):
    """Scored rows: float32 `[B]`, users as strings."""

    probs: np.ndarray
    click: np.ndarray
    weight: np.ndarray | None
    user: np.ndarray
    event_time: float = -math.inf

    @property
    def weights(self) -> np.ndarray:
        return np.ones(len(self.click)) if self.weight is None else self.weight.astype(np.float64)


def batches(sizes: Sequence[int], *, seed: int = 0, weighted: bool = False, seconds: float = 0.0) -> list[Rows]:
    """Batches of clicks at a rate of some per cent, scored well but not perfectly; `seconds` of event time apart."""
    rng = np.random.default_rng(seed)
    made = []
    for place, size in enumerate(sizes):
        log_odds = rng.normal(-2.0, 1.2, size)
        click = (rng.random(size) < 1 / (1 + np.exp(-log_odds))).astype(np.float32)
        probs = (1 / (1 + np.exp(-(log_odds + rng.normal(0.2, 0.5, size))))).astype(np.float32)
        weight = rng.choice([0.0, 0.5, 1.0, 2.0], size).astype(np.float32) if weighted else None
        user = np.array([f"u{number}".encode() for number in rng.integers(0, 5, size)], object)
        time = 1_700_000_000.0 + place * seconds if seconds else -math.inf
        made.append(Rows(probs, click, weight, user, time))
    return made


def joined(rows: Sequence[Rows]) -> Rows:
    """All rows in one."""
    weight = None if rows[0].weight is None else np.concatenate([each.weight for each in rows])  # type: ignore[arg-type]
    parts = (np.concatenate([getattr(each, name) for each in rows]) for name in ("probs", "click", "user"))
    probs, click, user = parts
    return Rows(probs, click, weight, user)


# It is only asked for its config and tasks.
recommender = functools.cache(built)


class Stream:
    """A prequential evaluation, and the graph that feeds it."""

    def __init__(self, *, model: str, **config: float) -> None:
        self.records = Records()
        self.prequential = Prequential(
            stream_pb2.PrequentialConfig(**config),
            recommender(model),
            [self.records],  # type: ignore[arg-type]
        )
        self.step = 0
        self._score = tf.function(self._graph, autograph=False, reduce_retracing=True)

    def _graph(self, rows: dict[str, tf.Tensor], step: tf.Tensor, event_time: tf.Tensor) -> tf.Tensor:
        targets = Targets({"click": rows["click"]}, rows.get("weight"), {"user": rows["user"]})
        batch = Batch({}, {}, targets)  # type: ignore[arg-type]
        op = self.prequential.score(batch, lambda: {"probs": rows["probs"]}, step, event_time)
        with tf.control_dependencies([op]):
            return tf.constant(0)

    def feed(self, rows: Sequence[Rows], told_after: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Scores batches; `on_steps` comes after each of these numbers of batches. Returns all records so far."""
        for place, batch in enumerate(rows, start=1):
            arrays = {name: value for name, value in batch._asdict().items() if value is not None}
            event_time = tf.constant(arrays.pop("event_time"), tf.float64)
            tensors = {name: tf.constant(value) for name, value in arrays.items()}
            self._score(tensors, tf.constant(self.step, tf.int64), event_time)
            self.step += 1
            if told_after is None or place in told_after or place == len(rows):
                self.prequential.on_steps(None, NO_STEPS)  # type: ignore[arg-type]
        return self.records.kept
