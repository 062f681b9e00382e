"""What a person decides about a run: on an alarm, to go back, to take over a newer base model."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easyrec_lite._sources import data_end
from easyrec_lite.checkpoints import Checkpoint, Files, checkpoint_paths, discard_after, find, latest, warm_start
from easyrec_lite.errors import UserError
from easyrec_lite.inputs import KafkaSource, Source
from easyrec_lite.protos import pipeline_pb2
from easyrec_lite.serving import exported_step, versions
from easyrec_lite.streaming import AlarmLog, Stop, published_dir
from easyrec_lite.streaming.alarms import ACCEPT, REBASE, REPLAY, SKIP, choices
from easyrec_lite.training import Trainer, training_tensors

PUBLISHED = "published"  # where --replay_from takes the checkpoint of the version that is served


@dataclass(frozen=True)
class Decision:
    """What to do.

    Attributes:
        kind: accept, skip, replay or rebase.
        place: for replay the step or the path of a checkpoint, or `published`; for rebase the path of the base model.
    """

    kind: str
    place: str = ""


def prepare(
    config: pipeline_pb2.EasyRecConfig,
    model_dir: Path,
    log: AlarmLog,
    decision: Decision | None,
    tell: Callable[[str], None],
    imports: Sequence[str] = (),
    files: Files | None = None,
) -> tuple[Checkpoint | None, Stop | None]:
    """The checkpoint from which the run goes on, None if there is none yet, and the STOP that is decided on.

    Raises:
        UserError: a STOP waits for a decision and there is none, or the decision does not fit.
    """
    stop = log.stop()
    if stop is not None:
        _go_back(model_dir, stop, decision, files)
        if decision is None:
            raise UserError(
                f"{model_dir}: the drift monitor stopped this run: {stop}. Nobody has decided what is to be done about"
                f" these rows; the evidence is in {log.path}. One of these goes on:\n"
                + choices(model_dir, stop.restored_step, imports)
            )
    newest = latest(model_dir)
    if decision is None:
        return newest, None
    if newest is None:
        raise UserError(f"{model_dir} holds no checkpoint to go on from; expected a run that was trained before.")
    if decision.kind == SKIP and stop is None:
        raise UserError(f"--on_alarm skip: no alarm stopped the run in {model_dir}. Go on by --continue_train.")
    if decision.kind == REPLAY:
        return _chosen(config, model_dir, decision.place, tell), stop
    return newest, stop


def _go_back(model_dir: Path, stop: Stop, decision: Decision | None, files: Files | None) -> None:
    """What the run that stopped did itself, unless it was killed meanwhile."""
    paths = checkpoint_paths(model_dir)
    if stop.restored_step in paths:
        discard_after(model_dir, stop.restored_step, files)
    elif decision is None or decision.kind != REPLAY:  # whoever replays says from where, and the others stay until then
        raise UserError(
            f"{model_dir}: the drift monitor stopped this run: {stop}. The checkpoint of step {stop.restored_step}, to"
            f" which it went back, is gone; found those of {', '.join(map(str, paths)) or 'no step'}. Put it back, or"
            " go on from one of them by --replay_from."
        )


def carry_out(
    decision: Decision, stop: Stop | None, trainer: Trainer, source: Source, log: AlarmLog, tell: Callable[[str], None]
) -> None:
    """Does what was decided, with a trainer that holds the newest checkpoint; then writes it down."""
    match decision.kind:
        case "accept":
            _accept(stop, trainer, log, tell)
        case "skip":
            _skip(stop, trainer, log, tell)
        case "replay":
            _replay(stop, trainer, log, tell)
        case "rebase":
            _rebase(decision.place, source, stop, trainer, log, tell)
        case _:
            raise ValueError(f"No decision is named {decision.kind!r}.")


def _accept(stop: Stop | None, trainer: Trainer, log: AlarmLog, tell: Callable[[str], None]) -> None:
    """The alarmed rows are trained after all; or, without a STOP, what holds is normal from this window on."""
    assert trainer.checkpoint is not None
    state = trainer.checkpoint.state["callbacks"].get("DriftMonitor", {})
    if stop is not None:
        # Where no older checkpoint was left, the one gone back to may be past the first alarmed window.
        keys, ids, row = stop.keys, stop.ids, max(stop.from_row, state.get("from_row", 0))
    else:
        keys = sorted((check, subject) for check, subject, _ in state.get("judge", {}).get("held", ()))
        ids, row = [record["id"] for record in log.last(keys)], state.get("from_row", 0)
    if not keys:
        raise UserError(f"--on_alarm accept: no alarm stops or holds the run in {trainer.model_dir}.")
    names = ", ".join(f"{check} of {subject}" if subject else check for check, subject in keys)
    log.decide(ACCEPT, trainer.step, ids, keys=keys, from_row=row, checkpoint=str(trainer.checkpoint.path))
    tell(f"accepted: {names}. What is normal is learned anew from row {row:,} on")


def _skip(stop: Stop | None, trainer: Trainer, log: AlarmLog, tell: Callable[[str], None]) -> None:
    assert stop is not None, "see prepare"
    assert trainer.checkpoint is not None
    skipped = stop.to_row - trainer.rows  # none of them sound: those were trained first
    trainer.move(stop.position)
    facts = {"rows": trainer.rows, "skipped_rows": skipped, "checkpoint": str(trainer.checkpoint.path)}
    log.decide(SKIP, trainer.step, stop.ids, **facts)
    tell(f"skipped {skipped:,} rows; the moved position is in {trainer.checkpoint.path.name}")


def _replay(stop: Stop | None, trainer: Trainer, log: AlarmLog, tell: Callable[[str], None]) -> None:
    assert trainer.checkpoint is not None
    log.decide(REPLAY, trainer.step, stop.ids if stop else (), checkpoint=str(trainer.checkpoint.path))
    tell(f"back at {trainer.checkpoint.path}, {trainer.rows:,} rows; the rows behind it are trained again")


def _rebase(
    place: str, source: Source, stop: Stop | None, trainer: Trainer, log: AlarmLog, tell: Callable[[str], None]
) -> None:
    """Takes over weights and optimizer state of a base model, and goes on where its data ended."""
    base = find(place)
    if not isinstance(source, KafkaSource) or trainer.position is None:
        raise UserError(
            "--rebase: the config trains on files, in which there is no place by time; expected kafka_train_input."
            " Start in a new model_dir, from the base model by --fine_tune_checkpoint."
        )
    if base.path.resolve().parent.parent == trainer.model_dir.resolve():
        raise UserError(f"--rebase: {base.path} is of this very run; go back to it by --replay_from {base.step}.")
    end = data_end(base)
    tensors = [tensor for tensor in training_tensors(trainer.stepper) if tensor.name != "training/step"]
    report = warm_start(base, tensors)
    report.unused[:] = [name for name in report.unused if name != "training/step"]
    trainer.event_time = end
    trainer.move(source.restart(trainer.position, end).to_json())
    assert trainer.checkpoint is not None
    facts: dict[str, Any] = {"rows": trainer.rows, "base": str(base.path), "event_time": end}
    log.decide(REBASE, trainer.step, stop.ids if stop else (), checkpoint=str(trainer.checkpoint.path), **facts)
    when = datetime.datetime.fromtimestamp(end, datetime.UTC).isoformat(sep=" ", timespec="seconds")
    tell(f"rebased on {base.path}: {report}\nThe stream goes on behind {when}, where its data ended")


def _chosen(config: pipeline_pb2.EasyRecConfig, model_dir: Path, place: str, tell: Callable[[str], None]) -> Checkpoint:
    """The checkpoint of `--replay_from`."""
    paths = checkpoint_paths(model_dir)
    if place == PUBLISHED:
        return _published(config, model_dir, tell)
    if place.isdecimal():
        step = int(place)
    else:
        checkpoint = Checkpoint(place)
        step = checkpoint.step
        if paths.get(step, Path()).resolve() != checkpoint.path.resolve():
            raise UserError(
                f"--replay_from: {place} is not a checkpoint of {model_dir}. A run goes back to its own checkpoints;"
                " to start from another's weights, use --rebase or --fine_tune_checkpoint."
            )
    if step not in paths:
        raise UserError(
            f"--replay_from: {model_dir} has no checkpoint of step {step}; it has those of"
            f" {', '.join(map(str, paths))}. See python -m easyrec_lite.checkpoints {model_dir}"
        )
    return Checkpoint(paths[step])


def _published(config: pipeline_pb2.EasyRecConfig, model_dir: Path, tell: Callable[[str], None]) -> Checkpoint:
    directory = published_dir(config.stream_config.publish, model_dir)
    found = versions(directory)
    if not found:
        raise UserError(f"--replay_from {PUBLISHED}: {directory} holds no published version.")
    step, paths = exported_step(found[-1]), checkpoint_paths(model_dir)
    chosen = max((saved for saved in paths if saved <= step), default=None)
    if chosen is None:
        raise UserError(
            f"--replay_from {PUBLISHED}: version {found[-1].name} is of step {step}, and {model_dir} has no checkpoint"
            f" that old any more; it has those of {', '.join(map(str, paths))}."
        )
    if chosen != step:
        tell(f"the checkpoint of version {found[-1].name}, step {step:,}, is gone; going back to step {chosen:,}")
    return Checkpoint(paths[chosen])
