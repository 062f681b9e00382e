"""A publisher by hand: as much of a training run as it looks at."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format

from easyrec_lite.checkpoints import Checkpoint, NumpyTensor, latest, prune, save
from easyrec_lite.protos import stream_pb2
from easyrec_lite.streaming.publishing import PUBLISHED_FILE, Publisher
from easyrec_lite.training import StepsResult

NOW = 1_800_000_000.0
BATCH = 100


class Killed(Exception):  # noqa: N818 - what it stands for
    """Raised where a process would be killed."""


@dataclasses.dataclass
class Gate:
    """A gate that is moved by hand."""

    cleared_rows: int = 0
    holding: bool = False


@dataclasses.dataclass
class Records:
    """A recorder that keeps everything."""

    kept: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def record(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        self.kept.append({"step": step, "kind": kind, **values})


class Writer:
    """Writes versions with a description and nothing else; may be killed before or after."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.killed = ""

    def __call__(
        self, checkpoint: Checkpoint, *, version: int | None = None, facts: Mapping[str, Any] | None = None
    ) -> Path:
        if self.killed == "before":
            raise Killed
        path = self.directory / str(version) / "assets"
        path.mkdir(parents=True)
        (path / "description.json").write_text(json.dumps({"step": checkpoint.step, **(facts or {})}))
        if self.killed == "after":
            raise Killed
        return path.parent


class Run:
    """A training run of batches of 100 rows, a second of event time each; it is also the trainer that callbacks see."""

    def __init__(
        self, model_dir: Path, config: str, gate: Gate | None = None, *, resume: bool = False, keep: int = 2
    ) -> None:
        self.model_dir = model_dir
        self.gate = gate
        self.records = Records()
        self.directory = model_dir / "published"
        self.writer = Writer(self.directory)
        self.now = NOW
        parsed = text_format.Parse(config, stream_pb2.PublishConfig())
        log = model_dir / PUBLISHED_FILE
        self.shown: list[str] = []
        self.publisher = Publisher(
            parsed,
            self.directory,
            self.writer,
            log,
            gate,
            [self.records],
            clock=lambda: self.now,
            tell=self.shown.append,
        )
        self.step = self.rows = 0
        self.event_time = -math.inf
        self.keep = keep
        self.checkpoint = latest(model_dir) if resume else None
        if self.checkpoint is not None:
            state = self.checkpoint.state
            self.step, self.rows, self.event_time = self.checkpoint.step, state["rows"], state["event_time"]
            self.publisher.restore(state["own"], {})
        self.publisher.on_start(self)  # type: ignore[arg-type]

    def steps(self, count: int = 1, *, seconds: float = 1.0) -> None:
        """Trains batches; the checkpoints that the publisher wants are written."""
        for _ in range(count):
            self.step += 1
            self.rows += BATCH
            self.event_time = max(self.event_time, NOW) + 1.0 if self.step > 1 else NOW
            self.now += seconds
            self.told(StepsResult(1, BATCH, {}, "position", self.event_time))

    def idle(self, seconds: float) -> None:
        """No rows come."""
        self.now += seconds
        self.told(StepsResult(0, 0, {}, ""))

    def told(self, result: StepsResult) -> None:
        """As the loop does it."""
        self.publisher.on_steps(self, result)  # type: ignore[arg-type]
        if self.publisher.wants_checkpoint() and (self.checkpoint is None or self.checkpoint.step != self.step):
            self.save()

    def save(self) -> None:
        """Writes a checkpoint."""
        weights = NumpyTensor("weights", np.array([self.step], np.int64))
        state = {"rows": self.rows, "event_time": self.event_time, "position": f"at {self.rows}"}
        state["own"] = self.publisher.state()[0]
        self.checkpoint = save(self.model_dir, self.step, [weights], state=state)
        prune(self.model_dir, self.keep, self.publisher.protected_steps())
        self.publisher.on_checkpoint(self, self.checkpoint)  # type: ignore[arg-type]

    def window(self, **metrics: float) -> None:
        """A prequential window ends."""
        self.publisher.record(self.step, "prequential", {"rows": BATCH, "window": {}, **metrics})

    @property
    def published(self) -> list[int]:
        """Steps of the versions that are there, oldest first."""
        found = sorted(
            (path for path in self.directory.glob("*") if path.name.isdigit()), key=lambda path: int(path.name)
        )
        return [json.loads((path / "assets" / "description.json").read_text())["step"] for path in found]

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of published.jsonl."""
        return [json.loads(line) for line in (self.model_dir / PUBLISHED_FILE).read_text().splitlines()]

    @property
    def dropped(self) -> list[tuple[int, str]]:
        """Steps that were dropped, and why."""
        return [(record["checkpoint_step"], record["dropped"]) for record in self.records.kept if "dropped" in record]
