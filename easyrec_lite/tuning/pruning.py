"""Evaluations of a training, told to Optuna."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.trial import Trial

from easyrec_lite.training import Callback, Trainer


class ReportEvaluations(Callback):
    """Reports the objective at each evaluation, and stops a training that Optuna would prune.

    Evaluations are numbered from 0, as Optuna's pruners have it: `n_warmup_steps: 1` lets the first one pass.

    Numbers, not steps: trials of other batch sizes are compared at the same share of their training if they are
    evaluated by `save_checkpoints_rows`.

    Args:
        trial: of Optuna.
        metric: the objective.
        maximize: whether more of it is better.
        best: what counts is the best evaluation so far, not this one.

    Attributes:
        pruned: why the training was stopped, or ''.
    """

    def __init__(self, trial: Trial, metric: str, maximize: bool, best: bool) -> None:
        self.pruned = ""
        self._trial, self._metric = trial, metric
        self._better = (max if maximize else min) if best else None
        self._evaluations = 0
        self._value = math.nan

    def on_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """See Callback."""
        value = metrics.get(self._metric, math.nan)
        if self._better is not None and not math.isnan(self._value):
            value = self._better(value, self._value)
        self._value = value
        # What was reported before a kill is not reported again: it is the same number.
        if self._evaluations not in self._trial.storage.get_trial(self._trial._trial_id).intermediate_values:
            self._trial.report(value, self._evaluations)
        if self._trial.should_prune():
            self.pruned = f"{self._metric} {value:.6g} at evaluation {self._evaluations + 1} (step {trainer.step:,})"
        self._evaluations += 1

    def stop_reason(self) -> str:
        """See Callback."""
        return f"pruned: {self.pruned}" if self.pruned else ""

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """See Callback."""
        return {"evaluations": self._evaluations, "value": self._value, "pruned": self.pruned}, {}

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """See Callback."""
        self._evaluations, self._value, self.pruned = state["evaluations"], state["value"], state["pruned"]


class Evaluations(Callback):
    """Keeps what each evaluation found.

    Attributes:
        last: metrics of the last one.
    """

    def __init__(self) -> None:
        self.last: dict[str, float] = {}
        self._lowest: dict[str, float] = {}
        self._highest: dict[str, float] = {}

    def on_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """See Callback."""
        self.last = dict(metrics)
        for name, value in metrics.items():
            self._lowest[name] = min(value, self._lowest.get(name, value))
            self._highest[name] = max(value, self._highest.get(name, value))

    def taken(self, metric: str, maximize: bool, best: bool) -> float:
        """The value of a metric that counts; NaN if no evaluation has it."""
        values = self.last if not best else self._highest if maximize else self._lowest
        return values.get(metric, math.nan)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """See Callback."""
        return {"last": self.last, "lowest": self._lowest, "highest": self._highest}, {}

    def restore(self, state: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """See Callback."""
        self.last, self._lowest, self._highest = dict(state["last"]), dict(state["lowest"]), dict(state["highest"])
