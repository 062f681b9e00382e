"""What there is to go back to: checkpoints, what was measured of them, and what became of them."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from easyrec_lite._run_records import Record, RunRecords, read_records, seconds_of, when
from easyrec_lite.checkpoints import Checkpoint, CheckpointError, checkpoint_paths
from easyrec_lite.errors import UserError
from easyrec_lite.terminal import main_guard, table, warn


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    arguments = argparse.ArgumentParser(
        prog="python -m easyrec_lite.checkpoints",
        description="Lists the checkpoints of a model directory, oldest first, with what was measured of them.",
        allow_abbrev=False,
    )
    arguments.add_argument("model_dir", type=Path, metavar="MODEL_DIR")
    arguments.add_argument("--json", action="store_true", help="print one JSON object a line")
    options = arguments.parse_args(argv)
    found = listing(options.model_dir)
    if options.json:
        for entry in found:
            print(json.dumps(entry, ensure_ascii=False))
        return 0
    table(f"Checkpoints of {options.model_dir}", *_cells(found))
    for entry in found:
        if "damaged" in entry:
            warn(entry["damaged"])
    return 0


def listing(model_dir: Path) -> list[dict[str, Any]]:
    """The checkpoints, oldest first, as JSON-able values.

    A sound one has `step`, `path`, `rows`, `event_time` (seconds since 1970, or None), `time` (written, ISO 8601),
    `bytes`, `metrics` of its evaluation, `prequential` (metrics of the last window that had ended, its `to_row`),
    `published` (versions made of it, each with its state) and `alarms_since` (ids of alarms raised after it was
    written). A damaged one has `step`, `path` and `damaged`.

    Raises:
        UserError: there is none.
    """
    paths = checkpoint_paths(model_dir)
    if not paths:
        found = "no checkpoint" if model_dir.is_dir() else "no such directory"
        raise UserError(
            f"{model_dir}: found {found}; expected the model_dir of a training that has written one. Say the model_dir"
            " of the config, or wait for the first checkpoint (train_config.save_checkpoints_*)."
        )
    records = read_records(model_dir)
    return [_entry(step, path, records) for step, path in paths.items()]


def _entry(step: int, path: Path, records: RunRecords) -> dict[str, Any]:
    entry: dict[str, Any] = {"step": step, "path": str(path)}
    try:
        checkpoint = Checkpoint(path)
        size, fingerprint = checkpoint.size, checkpoint.fingerprint
    except CheckpointError as error:
        return entry | {"damaged": str(error)}
    state = checkpoint.state
    return entry | {
        "rows": state.get("rows"),
        "event_time": state.get("event_time"),
        "time": checkpoint.manifest["time"],
        "bytes": size,
        "metrics": {name: value if math.isfinite(value) else None for name, value in checkpoint.metrics.items()},
        "prequential": _measured(step, records.windows),
        "published": [
            {"version": version.get("version"), "state": version["state"]}
            for version in records.published
            if version.get("fingerprint") == fingerprint
        ],
        "alarms_since": [
            str(alarm.get("id")) for alarm in records.alarms if _is_later(alarm, checkpoint.manifest["time"], step)
        ],
    }


def _measured(step: int, windows: Sequence[Record]) -> dict[str, Any]:
    """The metrics of the last prequential window that had ended; the running ones are left out."""
    ended = [window for window in windows if isinstance(window.get("step"), int) and window["step"] <= step]
    if not ended:
        return {}
    values = {
        name: value for name, value in ended[-1].items() if isinstance(value, float) and not name.startswith("running_")
    }
    window = ended[-1].get("window")
    return {"to_row": window.get("to_row") if isinstance(window, Mapping) else None, **values}


def _is_later(alarm: Record, written: str, step: int) -> bool:
    """Whether an alarm came after a checkpoint. Steps alone don't tell: a run that went back does them again."""
    raised, saved = seconds_of(alarm.get("time")), seconds_of(written)
    return raised > saved or (raised == saved and isinstance(alarm.get("step"), int) and alarm["step"] > step)


def _cells(found: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    sound = [entry for entry in found if "damaged" not in entry]
    metrics = _names(entry["metrics"] for entry in sound)
    measured = [name for name in _names(entry["prequential"] for entry in sound) if name != "to_row"]
    columns = ["step", "rows", "event time", "written", "MB"]
    columns += [*metrics, *(f"prequential {name}" for name in measured), "published", "alarms since"]
    rows: list[list[Any]] = []
    for entry in found:
        if "damaged" in entry:
            rows.append([entry["step"], "damaged", *[None] * (len(columns) - 2)])
            continue
        versions = [str(made["version"]) + _remark(made["state"]) for made in entry["published"]]
        rows.append(
            [
                entry["step"],
                entry["rows"],
                when(entry["event_time"]),
                when(seconds_of(entry["time"])),
                round(entry["bytes"] / 1e6, 1),
                *(entry["metrics"].get(name) for name in metrics),
                *(entry["prequential"].get(name) for name in measured),
                ", ".join(versions) or None,
                len(entry["alarms_since"]) or None,
            ]
        )
    return columns, rows


def _remark(state: str) -> str:
    return "" if state == "there" else f" ({state})"


def _names(entries: Any) -> list[str]:
    return list(dict.fromkeys(name for entry in entries for name in entry))
