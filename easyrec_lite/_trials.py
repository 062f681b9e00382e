"""Trials of a study: chosen, checked, measured, trained."""

from __future__ import annotations

import gc
import hashlib
import importlib
import math
import os
import shutil
import statistics
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from optuna.trial import Trial

from easyrec_lite import _runs, _sources, _training
from easyrec_lite._workers import Search
from easyrec_lite.config import ERROR, ConfigError
from easyrec_lite.inputs import as_dataset
from easyrec_lite.models import Recommender
from easyrec_lite.protos import pipeline_pb2
from easyrec_lite.tuning import (
    CONSTRAINTS,
    COSTS_FOUND,
    EDITS,
    EVALUATION,
    STD_ERROR,
    TRAIN_SECONDS,
    BaseConfig,
    Evaluations,
    ReportEvaluations,
    SharedStudy,
    Space,
    best_trials,
    read_space,
)

TRIALS_DIR, ERRORS_DIR = "trials", "errors"
_WAIT_SECONDS = 1.0
_LATENCY_CALLS = 30


def work(search: Search, parent: int, threads: int) -> None:
    """Runs trials until the study has all of them.

    Args:
        search: what to do.
        parent: number of the process that watches over this one.
        threads: TensorFlow's, unless environment or config say otherwise; 0 leaves them as they are.
    """
    for module in search.imports:
        importlib.import_module(module)
    space = read_space(search.space)
    base = BaseConfig(search.config, search.overrides, _runs.CHECKS)
    if threads and not base.config.message.train_config.intra_op_parallelism_threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    _runs.set_up_tensorflow(base.config.message)
    study = SharedStudy(search.storage, search.study, space, search.seed, parent)
    runner = TrialRunner(study, base, search.directory)
    # One without its parent is about to be ended: what other orphans left is not for it to begin.
    while os.getppid() == parent and (search.end is None or time.time() < search.end):
        trial = study.take(search.trials)
        if trial is not None:
            with study.alive(trial):
                runner.run(trial)
        elif study.is_over(search.trials):
            break
        else:  # others are at work; should one of them die, its trial is left to be done
            time.sleep(_WAIT_SECONDS)


class TrialRunner:
    """Runs trials.

    Args:
        study: that they are of.
        base: config that they change.
        directory: of the study.
    """

    def __init__(self, study: SharedStudy, base: BaseConfig, directory: Path) -> None:
        self._study, self._base, self._directory = study, base, directory
        self._space: Space = study.space

    def run(self, trial: Trial) -> None:
        """Runs a trial to its end, whatever that is."""
        try:
            self._run(trial)
        except ConfigError as error:
            self._study.prune(trial, f"impossible: {_in_a_line(error)}")
        except (MemoryError, tf.errors.ResourceExhaustedError) as error:
            self._fail(trial, f"out of memory: {_first_line(error)}")
        except Exception as error:
            self._fail(trial, f"{type(error).__name__}: {_first_line(error)}")
        finally:
            keras.backend.clear_session()
            gc.collect()
            self._clean_up()

    def _run(self, trial: Trial) -> None:
        values = self._study.choose(trial)
        edits = self._base.edits(self._space, values)
        trial.set_user_attr(EDITS, edits)
        config = self._base.load(edits).message
        twin = self._study.twin(trial, hashlib.sha256(config.SerializeToString(deterministic=True)).hexdigest())
        if twin is not None:
            self._study.repeat(trial, twin)
            return
        costs = measure(config, self._space)
        if costs:
            trial.set_user_attr(COSTS_FOUND, costs)
        limits = self._space.limits
        if limits:
            # Optuna's samplers learn from how far past the limits a trial is.
            trial.set_user_attr(CONSTRAINTS, [costs[name] / limit - 1 for name, limit in limits.items()])
        over = [f"{name} {costs[name]:,.6g} > {limit:,.6g}" for name, limit in limits.items() if costs[name] > limit]
        if over:
            self._study.prune(trial, f"limits: {', '.join(over)}")
            return
        self._train(trial, edits, costs)

    def _train(self, trial: Trial, edits: Sequence[str], costs: dict[str, float]) -> None:
        objectives = self._space.objectives
        found: list[dict[str, float]] = []
        evaluations: list[dict[str, float]] = []
        first_seed = self._base.load(edits).message.train_config.seed
        for seed in range(first_seed, first_seed + self._space.message.seeds_per_trial):
            model_dir = self._dir(trial.number) / f"seed-{seed}"
            watch, report = Evaluations(), None
            if seed == first_seed and len(objectives) == 1 and objectives[0].metric not in (*costs, TRAIN_SECONDS):
                objective = objectives[0]
                report = ReportEvaluations(trial, objective.metric, objective.maximize, objective.best)
            config = self._base.load(
                [
                    *edits,
                    f"model_dir={model_dir}",
                    f"train_config.seed={seed}",
                    "train_config.keep_checkpoint_max=1",
                    "export_config.exporter_type=none",
                ]
            )
            callbacks = [watch, report] if report is not None else [watch]
            result = _training.train(config, _training.TrainOptions(resume=True, callbacks=callbacks))
            # One that looks bad at its very last evaluation has been trained to its end.
            if report is not None and report.pruned and result.stopped_by == report.stop_reason():
                self._study.prune(trial, report.pruned)
                return
            known = {**costs, TRAIN_SECONDS: result.seconds}
            found.append({o.metric: known.get(o.metric, watch.taken(o.metric, o.maximize, o.best)) for o in objectives})
            evaluations.append(watch.last)
            if missing := [name for name, value in found[-1].items() if math.isnan(value)]:
                has = ", ".join(watch.last) or "nothing"
                self._fail(trial, f"no number for {', '.join(missing)}; the evaluation has {has}")
                return
        trial.set_user_attr(EVALUATION, _means(evaluations))
        if len(found) > 1:
            errors = {
                o.metric: statistics.stdev(values[o.metric] for values in found) / math.sqrt(len(found))
                for o in objectives
            }
            trial.set_user_attr(STD_ERROR, errors)
        means = _means(found)
        self._study.complete(trial, [means[objective.metric] for objective in objectives])

    def _fail(self, trial: Trial, reason: str) -> None:
        if sys.exc_info()[0] is not None:
            path = self._directory / ERRORS_DIR / f"{trial.number:05d}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(traceback.format_exc(), encoding="utf-8")
        self._study.fail(trial._trial_id, reason)

    def _dir(self, number: int) -> Path:
        return self._directory / TRIALS_DIR / f"{number:05d}"

    def _clean_up(self) -> None:
        clean_up(self._directory, self._study)


def clean_up(directory: Path, study: SharedStudy) -> None:
    """Removes the models of trials that ended and are not the best."""
    trials = study.trials()
    best = {trial.number for trial in best_trials(trials, study.space.objectives)}
    for trial in trials:
        if trial.state.is_finished() and trial.number not in best:
            shutil.rmtree(directory / TRIALS_DIR / f"{trial.number:05d}", ignore_errors=True)


def measure(config: pipeline_pb2.EasyRecConfig, space: Space) -> dict[str, float]:
    """The costs of a model that the space asks for; none of them needs training."""
    if not space.costs:
        return {}
    timed = "latency_ms" in space.costs
    recommender = Recommender(config, training=False, tables=timed)
    recommender.build()
    in_tables, in_layers = recommender.parameter_counts()
    weights = [variable for variable in recommender.dense_variables if str(variable.dtype).startswith("float")]
    found: dict[str, float] = {
        "parameters": in_tables + in_layers,
        "model_bytes": 4 * (in_tables + sum(math.prod(variable.shape) for variable in weights)),
    }
    if timed:
        found["latency_ms"] = _latency(config, recommender, space.message.limits.latency_rows)
    return {name: found[name] for name in space.costs}


def _latency(config: pipeline_pb2.EasyRecConfig, recommender: Recommender, rows: int) -> float:
    """Median milliseconds from raw columns to predictions."""
    source = _sources.evaluation_source(config, recommender)
    try:
        columns, _ = next(iter(as_dataset(source)))
    finally:
        source.close()
    columns = {name: columns[name][:rows] for name in recommender.feature_columns}

    @tf.function(autograph=False)
    def predict(raw: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return recommender.predict(recommender.encode(raw, targets=False))

    times = []
    for _ in range(_LATENCY_CALLS + 3):
        start = time.perf_counter()
        for prediction in predict(columns).values():
            prediction.numpy()
        times.append(time.perf_counter() - start)
    return float(np.median(times[3:])) * 1e3


def _means(records: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(record[name] for record in records) for name in records[0]}


def _in_a_line(error: ConfigError) -> str:
    """What is wrong, without the overrides that say so: the trial's choices are known."""
    paths: dict[str, list[str]] = {}
    for problem in error.problems:
        if problem.severity is ERROR:
            hint = f" ({problem.hint})" if problem.hint else ""
            expected = f", expected {problem.expected}" if problem.expected else ""
            paths.setdefault(f"found {problem.found}{expected}{hint}", []).append(problem.path)
    texts = [f"{', '.join(where[:3])}{' ...' if len(where) > 3 else ''}: {what}" for what, where in paths.items()]
    return "; ".join(texts[:3]) + (f"; and {len(texts) - 3} more" if len(texts) > 3 else "")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no message"
