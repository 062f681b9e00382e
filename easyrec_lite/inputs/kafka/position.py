"""Where a stream stands: the next row of each partition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from easyrec_lite.inputs.errors import InputError
from easyrec_lite.inputs.position import Tally


class Place(NamedTuple):
    """A gap between two rows of a partition: before row `row` of the message at `offset`, or of the next one."""

    offset: int
    row: int = 0


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """The next rows to read of a topic. Other rooms treat its JSON as opaque.

    Attributes:
        cluster: The identity of the cluster.
        topic: The topic's name.
        topic_id: The topic's identity, which a topic made anew has another of; "" for brokers before Kafka 2.8.
        batch: Number of the next batch.
        partitions: The next place of each partition; one that isn't there is read from its start.
        ends: Where each partition ends, for a run that does.
        tally: Rows read so far.
        lost: Messages skipped because the broker no longer had them.
        time: The newest event time so far, in seconds since 1970; None before the first row.
        workers: Processes that share the topic.
        worker: The number of the one whose position this is.
    """

    cluster: str
    topic: str
    topic_id: str
    batch: int = 0
    partitions: Mapping[int, Place] = field(default_factory=dict)
    ends: Mapping[int, int] | None = None
    tally: Tally = field(default_factory=Tally)
    lost: int = 0
    time: float | None = None
    workers: int = 1
    worker: int = 0

    @property
    def at_its_end(self) -> bool:
        """Whether it has ends and is there."""
        return self.ends is not None and all(
            self.partitions.get(number, Place(0)).offset >= end for number, end in self.ends.items()
        )

    def to_json(self) -> str:
        """This position as one line of JSON."""
        state: dict[str, Any] = {
            "cluster": self.cluster,
            "topic": self.topic,
            "topic_id": self.topic_id,
            "batch": self.batch,
            "partitions": {str(number): list(self.partitions[number]) for number in sorted(self.partitions)},
        }
        if self.ends is not None:
            state["ends"] = {str(number): self.ends[number] for number in sorted(self.ends)}
        state |= {"tally": [self.tally.rows, self.tally.bad, self.tally.kept], "lost": self.lost}
        if self.time is not None:
            state["time"] = self.time
        if self.workers != 1:
            state["worker"] = [self.worker, self.workers]
        return json.dumps(state, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> StreamPosition:
        """Reads what `to_json` wrote.

        Raises:
            InputError: `text` isn't the position of a stream.
        """
        try:
            state = json.loads(text)
            worker, workers = state.get("worker", [0, 1])
            ends = state.get("ends")
            return cls(
                str(state["cluster"]),
                str(state["topic"]),
                str(state["topic_id"]),
                int(state["batch"]),
                {int(number): Place(int(offset), int(row)) for number, (offset, row) in state["partitions"].items()},
                None if ends is None else {int(number): int(end) for number, end in ends.items()},
                Tally(*state["tally"]),
                int(state["lost"]),
                state.get("time"),
                int(workers),
                int(worker),
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                "the position to start from",
                f"{text[:200]!r}",
                "the JSON of a position in a stream",
                "it comes with every batch and is stored in each checkpoint; one of files doesn't fit a stream",
            ) from error

    def check(self, current: StreamPosition, bootstrap: str) -> None:
        """Raises InputError unless `current`, a fresh position of the topic as it is, is of the same topic."""
        place = f"topic {current.topic!r} at {bootstrap}"
        if (self.topic, self.cluster) != (current.topic, current.cluster):
            raise InputError(
                place,
                f"cluster {current.cluster!r}",
                f"topic {self.topic!r} of cluster {self.cluster!r}, which the position was taken in",
                "put server and topic back to continue, or start with a new model_dir",
            )
        if self.topic_id and current.topic_id and self.topic_id != current.topic_id:
            raise InputError(
                place,
                f"a topic made anew (id {current.topic_id})",
                f"the one of the position (id {self.topic_id}): offsets in one mean nothing in the other",
                "start with a new model_dir; to keep the weights, warm-start it from this one",
            )
        if (self.worker, self.workers) != (current.worker, current.workers):
            raise InputError(
                place,
                f"worker {current.worker} of {current.workers} in the config",
                f"worker {self.worker} of {self.workers}, whose position it is",
                "the partitions of a worker are fixed by its first start: put worker and workers back",
            )
        if (self.ends is None) != (current.ends is None):
            now, before = ("with", "without") if self.ends is None else ("without", "with")
            raise InputError(
                place,
                f"a config {now} an end",
                f"one {before} an end, as when the position was taken: the two mix partitions differently",
                "put the end back as it was, or start with a new model_dir",
            )
