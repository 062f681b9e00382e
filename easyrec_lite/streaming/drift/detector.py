"""Measures each window of a stream against what is usual."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from easyrec_lite.features import Profile
from easyrec_lite.protos import stream_pb2
from easyrec_lite.streaming.drift.checks import FIRST_WINDOWS, settings
from easyrec_lite.streaming.drift.clock import UNTIMED, cells_of
from easyrec_lite.streaming.drift.count_watch import CountWatch
from easyrec_lite.streaming.drift.counting import Counter
from easyrec_lite.streaming.drift.judging import Judge
from easyrec_lite.streaming.drift.layout import FlatBatch, Floats, Layout
from easyrec_lite.streaming.drift.level_watch import Found, LevelWatch
from easyrec_lite.streaming.drift.levels import Sample
from easyrec_lite.streaming.drift.rate import TrafficShape
from easyrec_lite.streaming.drift.repeats import Repeats, hash_rows
from easyrec_lite.streaming.drift.seen_ids import SeenIds, learning_windows
from easyrec_lite.streaming.drift.types import Measurement, WatchedBatch, WindowFacts

_LOG = logging.getLogger(__name__)


class Detector:
    """Watches a stream: nine checks of all features, labels, partitions and metrics.

    A measurement is breached if it is past its threshold and more than `sigmas` standard errors from the reference.
    A window is judged by itself and, unless the one before was breached, together with that: two windows tell what
    one can't. The standard error is that of independent rows, times what this stream's windows vary beyond it.

    Args:
        config: what to watch.
        reference: the profile at `reference_statistics`, if the config has one.

    Raises:
        ValueError: the config names reference statistics and none are given, or the other way round.
    """

    def __init__(self, config: stream_pb2.DriftConfig, reference: Profile | None = None) -> None:
        kind = config.WhichOneof("reference")
        if (kind == "reference_statistics") != (reference is not None):
            raise ValueError(f"Expected a profile with reference_statistics, and only then. Received: {kind}.")
        self._profile = reference
        self._half_life = config.reference_half_life_windows
        self._windows = config.reference_first_windows or FIRST_WINDOWS
        self._judge = Judge(settings(config))
        content = "" if reference is None else f" {hashlib.sha256(reference.to_json().encode()).hexdigest()}"
        self._identity = f"{kind} {self._half_life:g} {self._windows}{content}"
        self._traffic = TrafficShape(reference)
        self._told: set[str] = set()
        self._layout: Layout | None = None
        self._resumed = False
        self._reset()

    def _reset(self) -> None:
        self._rows = self._ended = 0  # rows and windows since the start of the run
        self._window_rows = 0
        # Of the rows of the window that is about to end: what was counted, and shares.
        self._measured: tuple[list[Measurement], list[Measurement]] | None = None
        self._levels = LevelWatch(self._windows, self._half_life)
        self._repeats = Repeats()

    def _start(self, layout: Layout) -> None:
        """Takes on what is in the first batch."""
        self._layout = layout
        self._counts = CountWatch(layout, self._windows, self._half_life, self._profile)
        self._seen = SeenIds(len(layout.ids), learning_windows(self._windows), self._half_life)
        if self._profile is not None:
            new = self._counts.unknown
            new |= {name for place, name in enumerate(layout.ids) if not self._seen.load(place, self._profile, name)}
            if new:
                self._tell(
                    f"the reference statistics don't know {', '.join(sorted(new))}: what is usual is learned from "
                    f"{self._windows} windows of the stream"
                )
        self._counter = Counter(layout)
        self._begin_window()

    def _begin_window(self) -> None:
        assert self._layout is not None
        self._window_rows = 0
        self._measured = None
        self._unseen, self._known = (np.zeros(len(self._layout.ids)) for _ in range(2))

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            _LOG.warning("drift: %s", what)

    @property
    def ready(self) -> bool:
        """Whether the reference is complete; what statistics don't know is learned from the first windows after."""
        return self._profile is not None or self._ended >= self._windows

    # ---- rows

    def update(self, batch: WatchedBatch) -> None:
        """Adds a batch to the window.

        Raises:
            ValueError: it has other features or labels than those before.
        """
        if not batch.rows:
            return
        flat = FlatBatch(batch.encoded, batch.rows, self._rows, batch.hashed)
        layout = Layout.of(flat, batch.labels)
        if self._layout is None:
            self._start(layout)
        elif layout != self._layout:
            if not self._resumed:
                raise ValueError(f"Features or labels differ from those before. {self._layout} Received: {layout}.")
            self._tell("there are other features or labels than before: what is usual is learned anew")
            self._reset()
            self._start(layout)
        self._resumed = False
        self._rows += batch.rows
        self._window_rows += batch.rows
        counts = self._counter.count(
            flat, batch.labels, batch.missing, self._counts.edges, self._seen.bits, self._seen.keep()
        )
        cells = cells_of(batch)
        if self._profile is not None and self._profile.cycle is None and cells[0][0] != UNTIMED:
            self._tell(
                "the reference statistics don't know when their rows happened, so drift is hard to tell from the time "
                "of the day: set data_config.event_time_field for the training that writes them"
            )
        self._counts.add(flat, counts.vector, cells)
        self._unseen += counts.unseen
        self._known += counts.known
        if self._judge.watches("duplicates", ""):
            self._repeats.add(hash_rows(flat, batch.labels))

    # ---- windows

    def measure_rows(self) -> None:
        """Measures the rows of the window, all of which are there: most of the work of `end_window`, ahead of it."""
        layout = self._layout
        if layout is None or not self._window_rows:
            return
        shares = self._levels.end_window(self._shares(layout), self._judge)
        shares = [self._with_ids(found, layout) for found in shares]
        breached = {found.subject for found in shares if found.breached and found.check == "unseen_rate"}
        self._seen.end_window(np.array([name in breached for name in layout.ids], np.bool_))
        self._measured = self._counts.end_window(self._judge), shares

    def end_window(self, facts: WindowFacts) -> list[Measurement]:
        """Ends the window and measures it; what is usual but still being learned is left out."""
        if self._measured is None:
            self.measure_rows()
        if self._measured is None:
            return []
        traffic = 1.0 if facts.event_time is None else self._traffic(*facts.event_time)
        numbers = self._levels.samples(facts, self._window_rows, traffic, self._traffic.known)
        counts, shares = self._measured
        measurements = counts + self._levels.end_window(numbers, self._judge) + shares
        self._ended += 1
        self._begin_window()
        return measurements

    def drop_window(self) -> None:
        """Forgets the batches since the last window ended: they are not trained on after all."""
        if self._layout is not None:
            self._rows -= self._window_rows
            self._counts.drop_window()
            self._seen.drop_window()
            self._repeats.drop_window()
            self._begin_window()

    def _shares(self, layout: Layout) -> list[Found]:
        """Shares of unseen ids and of repeated rows."""
        found = []
        counts = self._counts.counts
        missing = dict(zip(layout.features, counts[2 * len(layout.labels) :], strict=False))
        constant = self._counts.constant
        for place, name in enumerate(layout.ids):
            if self._seen.left[place] > 0 or constant[place] or not self._known[place]:
                continue
            share = self._seen.unseen(place, float(self._unseen[place] / self._known[place]))
            if share is None:
                self._tell(f"{name} has too many ids to tell which are new: unseen_rate leaves it out")
                continue
            # Ids of one row are not independent, and those whose slot is taken say nothing.
            values = min(float(self._known[place]), self._window_rows - float(missing[name]))
            free = 1.0 - float(self._seen.taken[place])
            found.append(Found("unseen_rate", name, Sample(share, max(values * free, 1.0))))
        if self._judge.watches("duplicates", ""):
            share, rows = self._repeats.end_window()
            if rows:
                found.append(Found("duplicates", "", Sample(share, rows)))
        return found

    def _with_ids(self, found: Measurement, layout: Layout) -> Measurement:
        if not found.breached or found.check != "unseen_rate":
            return found
        place = layout.ids.index(found.subject)
        return dataclasses.replace(found, contributions=self._counts.new_ids(place, self._seen.bits[place]))

    def accept(self, keys: Collection[tuple[str, str]]) -> None:
        """These (check, subject) are as they should be now: what is usual is learned from the windows that follow."""
        self._levels.accept(set(keys))
        if self._layout is not None:
            self._counts.accept(set(keys))
            for place, name in enumerate(self._layout.ids):
                if ("unseen_rate", name) in keys:
                    self._seen.relearn(place, learning_windows(self._windows))

    # ---- state

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """For a checkpoint: a detector that restores it measures what this one would."""
        state: dict[str, Any] = {"identity": self._identity, "layout": None}
        if self._layout is None:
            return state, {}
        counts, arrays = self._counts.state()
        state |= {
            "layout": [list(names) for names in dataclasses.astuple(self._layout)],
            "rows": self._rows,
            "ended": self._ended,
            "window_rows": self._window_rows,
            "told": sorted(self._told),
            "counts": counts,
            "levels": self._levels.state(),
        }
        arrays = {f"counts/{name}": array for name, array in arrays.items()}
        arrays |= {f"seen/{name}": array for name, array in self._seen.arrays().items()}
        arrays |= {f"repeats/{name}": array for name, array in self._repeats.arrays().items()}
        return state, arrays | {"unseen": self._unseen.copy(), "known": self._known.copy()}

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Takes back what `state` gave; with another reference than before, all is learned anew."""
        if state["layout"] is None:
            return
        if state["identity"] != self._identity:
            self._tell("there is another reference than before: what is usual is learned anew")
            return
        self._told |= set(state["told"])
        self._start(Layout(*(tuple(names) for names in state["layout"])))
        self._resumed = True
        self._rows, self._ended, self._window_rows = state["rows"], state["ended"], state["window_rows"]
        self._levels.restore(state["levels"])
        self._counts.restore(state["counts"], _below("counts", arrays))
        self._seen.restore(_below("seen", arrays))
        self._repeats.restore(_below("repeats", arrays))
        self._unseen, self._known = np.array(arrays["unseen"]), np.array(arrays["known"])


def _below(prefix: str, arrays: Mapping[str, Floats]) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{prefix}/"): array for name, array in arrays.items() if name.startswith(f"{prefix}/")}
