"""Which rows make up a batch: as the ledger says, as they arrive, or by the time of their messages."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from easyrec_lite.inputs.kafka.backlog import Backlog, Segment
from easyrec_lite.inputs.kafka.feed import Feed
from easyrec_lite.inputs.kafka.ledger import Entry
from easyrec_lite.inputs.kafka.merge import Merge
from easyrec_lite.inputs.kafka.position import Place
from easyrec_lite.inputs.kafka.stretch import Piece

_IDLE_SECONDS = 1.0


@dataclass
class Draft:
    """A batch in the making; one without rows says that nothing came for about a second.

    Attributes:
        pieces: Its rows.
        moved: The next place of each partition that it moved.
        segments: What it took from the partitions, as the ledger keeps it.
        lost: Messages that were gone.
        replayed: The ledger has it.
    """

    pieces: list[Piece] = field(default_factory=list)
    moved: dict[int, Place] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    lost: int = 0
    replayed: Entry | None = None

    def add(self, segment: Segment, piece: Piece | None) -> None:
        """Adds what was taken from a backlog."""
        last = self.segments[-1] if self.segments else None
        if last is not None and (last.partition, last.end, last.lost) == (
            segment.partition,
            segment.start,
            segment.lost,
        ):
            self.segments[-1] = Segment(segment.partition, last.start, segment.end, segment.lost)
        elif segment.start < segment.end:
            self.segments.append(segment)
        self.moved[segment.partition] = segment.end
        if segment.lost:
            self.lost += segment.end.offset - segment.start.offset
        if piece is not None and piece.count:
            self.pieces.append(piece)

    @property
    def rows(self) -> int:
        """Usable rows."""
        return sum(len(piece.rows) for piece in self.pieces)

    @property
    def count(self) -> int:
        """All rows."""
        return sum(piece.count for piece in self.pieces)


def replayed(entries: Sequence[Entry], feed: Feed, backlog: Backlog, max_rows: int) -> Iterator[Draft]:
    """The batches of the ledger.

    Args:
        entries: What the ledger says.
        feed: The topic, from the place of the first of them on.
        backlog: What was read; what is left goes on behind the last batch.
        max_rows: Rows read ahead.
    """
    for entry in entries:
        draft = Draft(replayed=entry)
        for segment in entry.segments:
            number = segment.partition
            while backlog.places.get(number, Place(0)) < segment.end:
                took = False
                for taken in backlog.take_to(number, segment.end):
                    draft.add(*taken)
                    took = True
                if not took:
                    items = feed.get(_IDLE_SECONDS, [number] if backlog.usable > max_rows else None)
                    for partition, item in items:
                        backlog.add(item, partition)
                    if not items:
                        yield Draft()
        yield draft


def live(feed: Feed, backlog: Backlog, batch_size: int, max_wait: float) -> Iterator[Draft]:
    """Batches as the rows arrive, for ever: full ones, or what there is when its first row has waited long enough."""
    while True:
        deadline = time.monotonic() + _IDLE_SECONDS
        while backlog.usable < batch_size:
            oldest = backlog.oldest()
            until = deadline if oldest is None else oldest + max_wait
            if (left := until - time.monotonic()) <= 0:
                break
            for partition, item in feed.get(left):
                backlog.add(item, partition)
        draft = Draft()
        for taken in backlog.take(batch_size):
            draft.add(*taken)
        yield draft


def merged(feed: Feed, merge: Merge, batch_size: int, max_rows: int) -> Iterator[Draft]:
    """Full batches of the merged partitions, and at last what is left; the last batch is at the ends, behind all gaps.

    A full batch goes out when the next row is known, so that the last one takes with it all that follows without rows.
    """
    full: Draft | None = None
    draft, wanted = Draft(), batch_size
    while not merge.over:
        for gap in merge.lost():
            draft.moved[gap.partition] = Place(gap.next)
            draft.lost += gap.next - gap.offset
        run = merge.take()
        if run is None:
            starving = merge.starving()
            items = feed.get(_IDLE_SECONDS, starving if merge.rows > max_rows else None) if starving else []
            for partition, item in items:
                merge.add(item, partition)
            if starving and not items:
                yield Draft()
            continue
        while run.left:
            piece = run.take(run.after(wanted))
            if full is not None and len(piece.rows):
                yield full
                full = None
            draft.pieces.append(piece)
            draft.moved |= piece.moved
            wanted -= len(piece.rows)
            if not wanted:
                full, draft, wanted = draft, Draft(), batch_size
        draft.moved |= run.take_empty()
    if full is not None:
        full.pieces += draft.pieces
        full.lost += draft.lost
    last = full or draft
    last.moved = {number: Place(end) for number, end in merge.ends.items()}
    if last.count or last.lost or merge.gaps:
        yield last


def newest(times: Sequence[float]) -> float:
    """The largest of some times; NaN if none is known."""
    return max((at for at in times if not math.isnan(at)), default=math.nan)
