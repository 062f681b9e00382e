"""Parity: an export predicts what the trainer predicts, shown on real rows before the export gets its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from easyrec_lite.errors import UserError
from easyrec_lite.features import Column, Columns
from easyrec_lite.models import Recommender
from easyrec_lite.serving import requests
from easyrec_lite.serving.columns import ServedColumn
from easyrec_lite.serving.module import (
    CACHED,
    DEFAULT,
    ITEM_EMBEDDING,
    SCORE,
    TILED,
    USER,
    USER_EMBEDDING,
)

TOLERANCE = 1e-5
_BATCH = 256
_ITEMS = 8
_LOADER = "TensorFlow's C++ loader (TF_LoadSessionFromSavedModel)"

Predictions = Mapping[str, np.ndarray]


class ParityError(UserError):
    """The export does not predict what the trainer predicts."""


class Answering(Protocol):
    """What answers for an export: a `LoadedModel`, or a server by `live_parity.LiveModel`."""

    @property
    def signatures(self) -> Mapping[str, Any]:
        """By name."""

    def __call__(self, signature: str, inputs: Mapping[str, Any]) -> Predictions:
        """All outputs for values by name; those that the signature does not take are left out."""


@dataclass
class Difference:
    """The largest differences between a signature's output and the trainer's.

    Attributes:
        way: how the export was asked.
        output: name of the prediction.
        values: number of values compared.
        absolute: largest |served - trained|.
        relative: largest |served - trained| / |trained|, of values that differ by more than the tolerance's
            absolute part; 0 where none does.
        excess: largest |served - trained| / (tolerance + tolerance * |trained|); above 1 fails.
    """

    way: str
    output: str
    values: int = 0
    absolute: float = 0.0
    relative: float = 0.0
    excess: float = 0.0

    def add(self, served: np.ndarray, trained: np.ndarray, tolerance: float) -> None:
        """Compares more values; those of other shapes, or that are no numbers on one side, differ infinitely."""
        self.values += trained.size
        if served.shape != trained.shape or not np.array_equal(np.isfinite(served), np.isfinite(trained)):
            self.absolute = self.relative = self.excess = float("inf")
            return
        finite = np.isfinite(trained)
        size = np.abs(trained[finite].astype(np.float64))
        difference = np.abs(served[finite].astype(np.float64) - trained[finite])
        if difference.size:
            self.absolute = max(self.absolute, float(difference.max()))
            self.excess = max(self.excess, float((difference / (tolerance + tolerance * size)).max()))
            large = difference > tolerance
            if large.any():
                self.relative = max(self.relative, float((difference[large] / np.maximum(size[large], 1e-30)).max()))


@dataclass
class ParityReport:
    """What was compared.

    Attributes:
        rows: number of rows replayed.
        requests: number of requests for one user each.
        tolerance: absolute, and relative to the trainer's value; the two are added.
        loader: what loaded the export.
        differences: by way and output.
    """

    rows: int
    requests: int
    tolerance: float
    loader: str = _LOADER
    differences: list[Difference] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every difference is within the tolerance."""
        return all(difference.excess <= 1.0 for difference in self.differences)

    def to_json(self) -> dict[str, Any]:
        """For `assets/parity.json`."""
        return {"passed": self.passed, **asdict(self)}

    def raise_if_failed(self, who: str = "The export", outcome: str = "Nothing was written.") -> None:
        """Does so.

        Args:
            who: what was asked, to begin a sentence with.
            outcome: a sentence on what became of the export.

        Raises:
            ParityError: with the largest differences.
        """
        if self.passed:
            return
        worst = sorted(self.differences, key=lambda difference: -difference.excess)[:3]
        found = "; ".join(f"{d.way}: {d.output} differs by {d.absolute:.3g}" for d in worst if d.excess > 1)
        raise ParityError(
            f"{who} does not predict what the trainer predicts on {self.rows:,} rows: {found}; expected at most"
            f" {self.tolerance:g} + {self.tolerance:g} * |prediction|. {outcome}"
        )


def compare(
    recommender: Recommender,
    session: Answering,
    columns: Sequence[ServedColumn],
    rows: Columns,
    *,
    separator: str | None = None,
    tolerance: float = TOLERANCE,
    loader: str = _LOADER,
) -> ParityReport:
    """Replays rows through the trainer's graph and through every signature.

    All rows in batches of different users; and for each user a request with some items, for which the trainer is given
    the user's columns once an item.

    Args:
        recommender: restored from the checkpoint that was exported.
        session: the export.
        columns: its inputs.
        rows: raw columns as training reads them.
        separator: of the single-string form of `serving_default`, if it has that.
        tolerance: absolute and relative.
        loader: what loaded the export, for the report.
    """
    inputs = requests.as_inputs(rows, columns)
    asked = list(requests.user_requests(inputs, columns, _ITEMS)) if any(c.of_user for c in columns) else []
    report = ParityReport(requests.count(rows), len(asked), tolerance, loader)
    found: dict[tuple[str, str], Difference] = {}

    def note(way: str, served: Predictions, trained: Predictions) -> None:
        for name in sorted(set(served) & set(trained)):
            difference = found.setdefault((way, name), Difference(way, name))
            difference.add(served[name], trained[name], tolerance)

    trainer = _Trainer(recommender, {column.name: rows[column.name] for column in columns})
    for start in range(0, report.rows, _BATCH):
        places = np.arange(start, min(start + _BATCH, report.rows))
        batch = {name: values[places] for name, values in inputs.items()}
        trained = trainer(requests.taken(rows, places))
        if separator is not None:
            note(f"{DEFAULT}, text", session(DEFAULT, requests.as_text(batch, columns, separator)), trained)
        else:
            note(f"{DEFAULT}, N users", session(DEFAULT, batch), trained)
        for signature in (TILED, USER_EMBEDDING, ITEM_EMBEDDING):
            if signature in session.signatures:
                note(signature, session(signature, batch), trained)
    for request, expected in _expected(trainer, asked, rows, columns):
        one = request.inputs(inputs, columns)
        if separator is None:
            note(f"{DEFAULT}, one user", session(DEFAULT, one), expected)
        if SCORE in session.signatures:
            note(f"{USER}, {SCORE}", session(SCORE, {**session(USER, one), **one}), expected)
        if CACHED in session.signatures:
            for _ in range(2):
                served = session(CACHED, one)
                note(f"{CACHED}, {'warm' if served['cache_hit'][0] else 'cold'}", served, expected)
    report.differences = list(found.values())
    return report


class _Trainer:
    """The trainer's predictions: the plain graph over distinct rows, as evaluation runs it."""

    def __init__(self, recommender: Recommender, rows: Columns) -> None:
        def predict(columns: Any) -> Any:
            return recommender.predict(recommender.encode(columns, targets=False))

        self._specs = {name: _any_rows(column) for name, column in rows.items()}
        traced = tf.function(predict, input_signature=[self._specs], autograph=False)
        # Of a function that is called, TensorFlow counts how often its code is traced, and an export does it anew.
        self._predict = traced.get_concrete_function()

    def __call__(self, rows: Columns) -> dict[str, np.ndarray]:
        return {n: x.numpy() for n, x in self._predict({name: rows[name] for name in self._specs}).items()}


def _any_rows(column: Column) -> tf.TensorSpec | tf.RaggedTensorSpec:
    """The type of the column with any number of rows."""
    if isinstance(column, tf.RaggedTensor):
        return tf.RaggedTensorSpec([None] * len(column.shape), column.dtype, column.ragged_rank)
    return tf.TensorSpec([None], column.dtype)


def _expected(
    trainer: _Trainer, asked: Sequence[requests.UserRequest], rows: Columns, columns: Sequence[ServedColumn]
) -> Iterator[tuple[requests.UserRequest, Predictions]]:
    """Each request with what the trainer predicts for it."""
    size = max(1, _BATCH // _ITEMS)
    for start in range(0, len(asked), size):
        some = asked[start : start + size]
        parts = [request.unsplit(rows, columns) for request in some]
        whole = trainer({column.name: tf.concat([part[column.name] for part in parts], axis=0) for column in columns})
        end = 0
        for request in some:
            begin, end = end, end + len(request.items)
            yield request, {name: values[begin:end] for name, values in whole.items()}
