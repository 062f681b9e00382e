"""What a study leaves: the best config, its edits as EasyRec's JSON, and a table of all trials."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import io
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from optuna.trial import FrozenTrial

from easyrec_lite.checkpoints import atomic_write_text
from easyrec_lite.config import redact
from easyrec_lite.tuning.choices import split_edit, text_of
from easyrec_lite.tuning.space import BaseConfig, Space
from easyrec_lite.tuning.study import (
    ATTEMPTS,
    COSTS_FOUND,
    EVALUATION,
    STD_ERROR,
    SharedStudy,
    best_trials,
    edits_of,
    is_feasible,
    reason_of,
)

BEST_CONFIG, BEST_PARAMS, TRIALS_CSV, FRONT_DIR = "best.config", "best_params.json", "trials.csv", "front"
_PACKAGES = ("easyrec_lite", "tensorflow", "keras", "optuna", "numpy")


def write_results(directory: Path, study: SharedStudy, base: BaseConfig) -> list[FrozenTrial]:
    """Writes everything that can be said so far; returns the best trials, best first.

    `best.config` and `best_params.json` are of the first of them; with several objectives there is a config in
    `front/` for each.
    """
    space, trials = study.space, study.trials()
    atomic_write_text(directory / TRIALS_CSV, _csv(trials, space))
    best = best_trials(trials, space.objectives)
    if best:
        atomic_write_text(directory / BEST_CONFIG, config_text(best[0], study, base, directory / "best"))
        parameters = {"param": dict(map(_parameter, edits_of(best[0])))}
        atomic_write_text(directory / BEST_PARAMS, json.dumps(parameters, indent=1, ensure_ascii=False) + "\n")
    if len(space.objectives) > 1:
        for trial in best:
            path = directory / FRONT_DIR / f"{trial.number:05d}.config"
            if not path.exists():
                atomic_write_text(path, config_text(trial, study, base, path.with_suffix("")))
        kept = {f"{trial.number:05d}.config" for trial in best}
        for path in (directory / FRONT_DIR).glob("*.config"):
            if path.name not in kept:
                path.unlink()
    return best


def config_text(trial: FrozenTrial, study: SharedStudy, base: BaseConfig, model_dir: Path) -> str:
    """The trial's config, to be trained in `model_dir`, headed by where it comes from."""
    config = base.written(study.space, trial.params)
    config.model_dir = str(model_dir)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    ended = trial.datetime_complete or datetime.datetime.now()
    lines = [
        f"Trial {trial.number} of the study {study.name!r}, {ended:%Y-%m-%d %H:%M}: {values_text(trial, study.space)}",
        f"From {base.path}, with",
        *(f"  {_short(f'{name} = {text_of(value)}')}" for name, value in trial.params.items()),
        f"Python {platform.python_version()}, {versions}",
        f"python -m easyrec_lite.train --config {model_dir.parent / BEST_CONFIG}"
        if model_dir.name == "best"
        else f"python -m easyrec_lite.train --config {model_dir}.config",
    ]
    header = "".join(f"# {line}\n" for line in " \n".join(lines).split("\n"))
    header = "\n".join(line.rstrip() for line in header.splitlines())
    return f"{header}\n\n{text_format.MessageToString(redact(config), as_utf8=True)}"


def values_text(trial: FrozenTrial, space: Space) -> str:
    """The trial's values, with their standard errors where several seeds were trained."""
    errors: dict[str, float] = trial.user_attrs.get(STD_ERROR, {})
    texts = []
    for objective, value in zip(space.objectives, trial.values or (), strict=False):
        error = errors.get(objective.metric)
        texts.append(f"{objective.metric} {value:.6g}" + (f" +- {error:.2g}" if error is not None else ""))
    return ", ".join(texts)


def seconds_of(trial: FrozenTrial) -> float | None:
    """How long the trial has taken."""
    if trial.datetime_start is None:
        return None
    return ((trial.datetime_complete or datetime.datetime.now()) - trial.datetime_start).total_seconds()


def _csv(trials: Sequence[FrozenTrial], space: Space) -> str:
    attributes = (EVALUATION, COSTS_FOUND)
    found = {
        kind: list(dict.fromkeys(name for trial in trials for name in trial.user_attrs.get(kind, ())))
        for kind in attributes
    }
    metrics = [objective.metric for objective in space.objectives]
    choices = [choice.name for choice in space.choices]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    head = ["trial", "state", *metrics, *(f"{metric} std_error" for metric in metrics), "feasible", *choices]
    head += [f"{kind}.{name}" for kind in attributes for name in found[kind]]
    writer.writerow([*head, "seconds", "attempts", "started", "reason"])
    for trial in trials:
        values = list(trial.values or [None] * len(metrics))
        errors = trial.user_attrs.get(STD_ERROR, {})
        row: list[Any] = [trial.number, trial.state.name, *values, *(errors.get(metric) for metric in metrics)]
        row.append(is_feasible(trial) if trial.state.is_finished() else None)
        row += [text_of(trial.params[name]) if name in trial.params else None for name in choices]
        row += [trial.user_attrs.get(kind, {}).get(name) for kind in attributes for name in found[kind]]
        started = trial.datetime_start.isoformat(" ", "seconds") if trial.datetime_start else None
        seconds = seconds_of(trial) if trial.state.is_finished() else None
        writer.writerow([*row, seconds, trial.user_attrs.get(ATTEMPTS), started, reason_of(trial)])
    return file.getvalue()


def _parameter(edit: str) -> tuple[str, Any]:
    path, text = split_edit(edit)
    try:
        value = json.loads(text)
    except ValueError:
        return path, text
    # Only what is written the same in both languages; lists and blocks stay in the config's own.
    return path, value if isinstance(value, bool | int | float) else text


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 110 else f"{line[:107]}..."
