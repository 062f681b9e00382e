"""Watches what can be counted in rows: labels, missing values, distributions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from easyrec_lite.features import Profile
from easyrec_lite.features.hashing import CYCLE_BUCKETS, SLOTS, slots_of
from easyrec_lite.streaming.drift import comparing
from easyrec_lite.streaming.drift.clock import UNTIMED
from easyrec_lite.streaming.drift.comparing import Spread, Usually, totals
from easyrec_lite.streaming.drift.counting import EdgeValues, IdSample, bin_counts, edges_of
from easyrec_lite.streaming.drift.judging import Judge, first_breach
from easyrec_lite.streaming.drift.layout import NUMBER_BINS, FlatBatch, Floats, Layout
from easyrec_lite.streaming.drift.recent import Recent
from easyrec_lite.streaming.drift.seen_ids import Bits, Bytes, hits
from easyrec_lite.streaming.drift.types import Contribution, Measurement
from easyrec_lite.streaming.drift.usual import Usual

_EDGE_ROWS = 1000  # values from which the bins of a column can be made
_NAMED = 3  # ids that stand for a bucket in evidence
_MOST = 5  # contributions


class CountWatch:
    """Compares the counts of each window, and of each with the one before, with what is usual.

    Args:
        layout: what is counted.
        windows: that a reference is learned from.
        half_life: windows after which one counts half; 0 for a reference that stays.
        profile: the reference, if there is one.

    Attributes:
        edges: of the bins of each column of numbers; None where they are not known yet.
        unknown: subjects that the profile doesn't know.
    """

    def __init__(self, layout: Layout, windows: int, half_life: float, profile: Profile | None) -> None:
        subjects = len(layout.sizes)
        self.layout = layout
        self._windows = windows
        self._half_life = half_life
        self.edges: list[npt.NDArray[np.float32] | None] = [None] * len(layout.columns)
        self.unknown: set[str] = set()
        self._usual = Usual(layout)
        self._learning = np.full(subjects, windows)  # windows left, of each subject
        self._given: Bits = np.zeros(subjects, np.bool_)  # by the profile
        if profile is not None:
            self._usual, known, self.edges = Usual.of_profile(layout, profile)
            self._learning[known], self._given = 0, known
            self.unknown = {name for (_, name), there in zip(layout.subjects, known, strict=True) if not there}
        self._spread = Spread(layout)
        self._recent = Recent(layout)
        self._breached: Bits = np.zeros(subjects, np.bool_)  # in the window before
        self._entered: Bits = np.zeros(subjects, np.bool_)  # the window before is in the reference already
        self._cells: dict[int, Floats] = {}
        self._before: dict[int, Floats] = {}
        self._edge_values = EdgeValues()
        self._sample = IdSample(len(layout.ids))

    @property
    def counts(self) -> Floats:
        """Of the window, `[width + subjects]`."""
        return totals(self._cells, self.layout)

    @property
    def constant(self) -> Bits:
        """Features of ids that were constant as long as the reference was learned, `[features of ids]`.

        They may tell the day of the week, and nobody knows what comes next.
        """
        return self._usual.constant() & ~self._given[self.layout.rates : self.layout.first_number]

    def add(self, batch: FlatBatch, vector: Floats, cells: list[tuple[int, float]]) -> None:
        """Adds a batch.

        Args:
            batch: it.
            vector: its counts.
            cells: hours of the week, and the share of its rows in each.
        """
        for cell, share in cells:
            part = vector * share
            self._cells[cell] = self._cells[cell] + part if cell in self._cells else part
        for edges, (name, values) in zip(self.edges, batch.columns.items(), strict=True):
            if edges is None:
                self._edge_values.add(name, values)
        self._sample.add(list(batch.ids.values()))

    def end_window(self, judge: Judge) -> list[Measurement]:
        """Measures the window."""
        learning = self._learning > 0
        now, before = (totals(cells, self.layout) for cells in (self._cells, self._before))
        usual = comparing.expectations(self._cells, self._usual)
        spans, usually = [now], [usual]
        if self._before:
            usual_before = comparing.expectations(self._before, self._usual)
            spans.append(before + now)
            usually.append(comparing.joined(usual_before, usual, self._usual))
        reference = self._usual, self._spread
        results = [comparing.compare(found, one, *reference) for found, one in zip(spans, usually, strict=True)]
        recent = [  # it knows rates
            comparing.compare(found, self._recent.adjusted(one), *reference, distributions=False)
            for found, one in zip(spans, usually, strict=True)
        ]
        lately = self._recent.known
        known, breached = results[0].known, np.zeros(len(learning), np.bool_)
        unknowable = np.zeros(len(learning), np.bool_)
        unknowable[self.layout.rates : self.layout.first_number] = self.constant
        measurements: list[Measurement] = []
        for subject, (check, name) in enumerate(self.layout.subjects):
            if learning[subject] or unknowable[subject] or not known[subject] or not judge.watches(check, name):
                continue
            last = 1 if self._breached[subject] else len(spans)
            ways = results[:last] + (recent[:last] if subject < len(lately) and lately[subject] else [])
            places = [0, *(n for n, way in enumerate(ways) if n and judge.is_unlikely(check, way.sigmas[subject]))]
            found = [judge(check, name, *ways[place].of(subject)) for place in places]
            first = first_breach(found)
            if found[first].breached:
                breached[subject] = True
                span = places[first] % last
                found[first] = self._with_parts(found[first], subject, spans[span], usually[span])
            measurements.append(found[first])
        if self._before:
            self._learn_course((before, now), (usual_before, usual), learning, breached)
        self._learn(learning, breached, now[self.layout.width :] > 0)
        return measurements

    def _learn_course(
        self, counts: tuple[Floats, Floats], usual: tuple[Usually, Usually], learning: Bits, breached: Bits
    ) -> None:
        """How windows vary and where the stream has come to: a window counts when the next shows it to be sound."""
        sound = ~breached & ~self._breached
        expected = (usual[0][0], usual[1][0])
        pair, known = comparing.pair_spread(counts, expected, self.layout, learning)
        self._spread.add(pair, known & sound, learning)
        self._recent.add(counts[0], usual[0], sound & ~learning & ~self._entered)

    def _learn(self, learning: Bits, breached: Bits, there: Bits) -> None:
        """A window enters a decaying past when the next one has not shown it to be a breach."""
        self._usual.add(self._cells, learning)
        if self._half_life:
            self._usual.decay(0.5 ** (1.0 / self._half_life), ~breached & there)
            self._usual.add(self._before, ~breached & ~self._breached & ~learning & ~self._entered)
        self._entered, self._breached = learning, breached
        self._learning = self._learning - (learning & there)
        self._make_edges()
        self._edge_values.end_window()
        self._before, self._cells = self._cells, {}
        self._sample = IdSample(len(self.layout.ids))

    def drop_window(self) -> None:
        """Forgets the batches since the last window ended."""
        self._cells, self._sample = {}, IdSample(len(self.layout.ids))
        self._edge_values.drop_window()

    def _make_edges(self) -> None:
        """Bins of columns of numbers that have none yet, from the numbers of the window; these are learned at once."""
        layout = self.layout
        for place, name in enumerate(layout.columns):
            if self.edges[place] is not None or len(self._edge_values.values.get(name, ())) < _EDGE_ROWS:
                continue
            values = self._edge_values.take(name)
            edges = self.edges[place] = edges_of(values)
            subject = layout.first_number + place
            vector = np.zeros(layout.width + len(layout.sizes))
            start = int(layout.starts[subject])
            vector[start : start + NUMBER_BINS] = bin_counts(values, edges)
            vector[layout.width + subject] = len(values)
            self._usual.add({UNTIMED: vector}, np.arange(len(layout.sizes)) == subject)
            self._learning[subject] -= 1

    def accept(self, keys: set[tuple[str, str]]) -> None:
        """What is usual for these is learned from the windows that follow."""
        chosen = np.array([subject in keys for subject in self.layout.subjects], np.bool_)
        if not chosen.any():
            return
        self._usual.forget(chosen)
        self._spread.forget(chosen)
        self._recent.forget(chosen)
        self._learning[chosen] = self._windows
        self._given &= ~chosen
        self._entered |= chosen
        self._breached |= chosen  # what was before says nothing of what comes
        for place in range(len(self.layout.columns)):
            if chosen[self.layout.first_number + place]:
                self.edges[place] = None

    # ---- evidence

    def _with_parts(self, found: Measurement, subject: int, counts: Floats, usually: Usually) -> Measurement:
        layout = self.layout
        if found.check != "distribution":
            return found
        parts = comparing.contributions(counts, usually[0], layout, subject, _MOST)
        if subject >= layout.first_number:
            edges = self.edges[subject - layout.first_number]
            assert edges is not None
            named = [Contribution(_range(edges, part), share, usual) for part, share, usual in parts]
        else:
            ids = self._sample.of(subject - layout.rates)
            buckets = slots_of(ids) // (SLOTS // CYCLE_BUCKETS)
            named = [Contribution(_names(ids[buckets == part], part), share, usual) for part, share, usual in parts]
        return dataclasses.replace(found, contributions=tuple(named))

    def new_ids(self, place: int, seen: Bytes) -> tuple[Contribution, ...]:
        """Ids of this window that were not seen, by their share in a sample."""
        sample = self._sample.of(place)
        if not len(sample):
            return ()
        ids, counts = np.unique(sample[~hits(seen, slots_of(sample))], return_counts=True)
        order = np.argsort(-counts, kind="stable")[:_MOST]
        return tuple(Contribution(f"id {ids[i]}", float(counts[i] / len(sample)), 0.0) for i in order)

    # ---- state

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """For a checkpoint."""
        arrays = {
            "usual/total": self._usual.total,
            "usual/squares": self._usual.squares,
            "usual/by_time": self._usual.by_time,
            "usual/cyclic": self._usual.cyclic,
            "usual/sure_of_days": np.array(self._usual.sure_of_days),
            "spread/sum": self._spread.sum,
            "spread/pairs": self._spread.pairs,
            "recent": self._recent.array(),
            "learning": self._learning,
            "given": self._given,
            "breached": self._breached,
            "entered": self._entered,
            "sample/ids": self._sample.ids,
            "sample/filled": self._sample.filled,
        }
        width = self.layout.width + len(self.layout.sizes)
        for name, cells in (("cells", self._cells), ("before", self._before)):
            arrays[name] = np.stack(list(cells.values())) if cells else np.zeros((0, width))
        edges = {str(place): edges for place, edges in enumerate(self.edges) if edges is not None}
        arrays |= {f"edges/{place}": array for place, array in edges.items()}
        columns = list(self._edge_values.values)
        arrays |= {f"values/{place}": self._edge_values.values[name] for place, name in enumerate(columns)}
        state = {
            "cells": list(self._cells),
            "before": list(self._before),
            "edges": list(edges),
            "columns": columns,
            "kept": dict(self._edge_values.kept),
        }
        return state, {name: array.copy() for name, array in arrays.items()}

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what `state` gave."""
        found = {name: np.array(array) for name, array in arrays.items()}
        for name in ("total", "squares", "by_time", "cyclic"):
            setattr(self._usual, name, found[f"usual/{name}"])
        self._usual.sure_of_days = bool(found["usual/sure_of_days"])
        self._spread.sum, self._spread.pairs = found["spread/sum"], found["spread/pairs"]
        self._recent.restore(found["recent"])
        self._learning, self._breached, self._entered = found["learning"], found["breached"], found["entered"]
        self._given = found["given"]
        self._sample.ids, self._sample.filled = found["sample/ids"], found["sample/filled"]
        self._cells, self._before = (dict(zip(state[name], found[name], strict=True)) for name in ("cells", "before"))
        self.edges = [None] * len(self.layout.columns)
        for place in state["edges"]:
            self.edges[int(place)] = found[f"edges/{place}"]
        self._edge_values.kept = dict(state["kept"])
        self._edge_values.values = {name: found[f"values/{i}"] for i, name in enumerate(state["columns"])}


def _range(edges: npt.NDArray[np.float32], part: int) -> str:
    if part == 0:
        return f"up to {edges[0]:.6g}"
    return f"above {edges[-1]:.6g}" if part >= len(edges) else f"{edges[part - 1]:.6g} to {edges[part]:.6g}"


def _names(ids: npt.NDArray[np.int64], part: int) -> str:
    """The ids of a bucket that a sample holds most of."""
    if not len(ids):
        return f"ids of hashed bucket {part} of {CYCLE_BUCKETS}"
    distinct, counts = np.unique(ids, return_counts=True)
    first = distinct[np.argsort(-counts, kind="stable")[:_NAMED]]
    return f"id{'s' if len(distinct) > 1 else ''} {', '.join(map(str, first))}" + (
        ", ..." if len(distinct) > _NAMED else ""
    )
