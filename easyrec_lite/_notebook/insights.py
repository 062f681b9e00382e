"""Looking into a trained model: the part of an experiment that draws and explains."""

from __future__ import annotations

import abc
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from easyrec_lite._insight import comparison, curves, importance, neighbours, scoring, selection
from easyrec_lite._notebook.charts import bar_chart, calibration_chart, distribution_chart, learning_curves
from easyrec_lite._notebook.configs import Config
from easyrec_lite._notebook.progress import track
from easyrec_lite._notebook.views import Comparison, View
from easyrec_lite.errors import UserError
from easyrec_lite.features import Column
from easyrec_lite.inputs.paths import Paths
from easyrec_lite.models import Recommender

# A frame, or files: a path, a pattern, a comma list, or several of these.
Data: TypeAlias = pd.DataFrame | Paths


class Insights(abc.ABC):
    """What can be asked of a trained model; each answer is a `View`: a frame with a chart of it."""

    name: str
    config: Config

    @property
    @abc.abstractmethod
    def model(self) -> Recommender:
        """Restored, for inference."""

    @property
    @abc.abstractmethod
    def history(self) -> pd.DataFrame:
        """Losses and metrics by step."""

    @abc.abstractmethod
    def scorer(
        self, data: Data | None = None, *, max_rows: int | None = None, columns: Sequence[str] = ()
    ) -> scoring.Scorer:
        """Holds rows and scores them, as they are or changed.

        Args:
            data: rows; None for those that training evaluated on, else those of the config.
            max_rows: at most so many; None for all.
            columns: further ones than the model's.
        """

    @abc.abstractmethod
    def column_values(self, column: str, data: Data | None = None) -> dict[str, Column] | None:
        """A raw column by itself, of the evaluation rows or else the training rows; None where there are none."""

    def score(
        self, data: Data | None = None, *, max_rows: int | None = None, columns: Sequence[str] = ()
    ) -> scoring.ScoredRows:
        """Rows with their labels and predictions; arguments as in `scorer`."""
        return self.scorer(data, max_rows=max_rows, columns=columns)()

    def learning_curves(self) -> View:
        """Losses and metrics over the steps."""
        history = self.history.drop(columns="rows_per_second", errors="ignore")
        return View(f"{self.name}: learning curves", history, learning_curves(history), open=False)

    def calibration(
        self, data: Data | None = None, *, task: str | None = None, bins: int = 20, by: str = "quantile"
    ) -> View:
        """How often rows of about one score are positive; see `_insight.curves.calibration`.

        Args:
            data: as in `evaluate`.
            task: a task's name or label, of a model with several; None for the first.
            bins: at most so many.
            by: "quantile" or "width".
        """
        scored = self.score(data)
        chosen = scored.task(task)
        result = curves.calibration(*_labels_and_scores(scored, task), bins=bins, by=by)
        notes = f"{len(scored):,} rows, expected calibration error {curves.calibration_error(result):.4g}"
        title = f"{self.name}: calibration of {chosen.score}"
        return View(title, result, calibration_chart(result, chosen.score), notes, open=False)

    def score_distribution(self, data: Data | None = None, *, task: str | None = None, bins: int = 40) -> View:
        """The scores of positive rows beside those of the others; arguments as in `calibration`."""
        scored = self.score(data)
        chosen = scored.task(task)
        result = curves.score_distribution(*_labels_and_scores(scored, task), bins=bins)
        title = f"{self.name}: distribution of {chosen.score}"
        return View(title, result, distribution_chart(result, chosen.score), f"{len(scored):,} rows", open=False)

    def importance(
        self,
        data: Data | None = None,
        *,
        method: str = "permutation",
        by: str = "column",
        metric: str | None = None,
        only: Sequence[str] | None = None,
        repeats: int = 5,
        max_rows: int | None = 50_000,
        seed: int = 1,
        **options: Any,
    ) -> View:
        """What each input is worth to the model.

        Args:
            data: as in `evaluate`.
            method: "permutation" (see `_insight.importance`) shuffles each input and evaluates; "dropout" (see
                `_insight.selection`) learns how much noise each feature bears before the loss suffers.
            by: of the permutation: "column" or "feature".
            metric: of the permutation; None for the first of the config.
            only: of the permutation: names to look at; None for all.
            repeats: of the permutation: shuffles of each input.
            max_rows: the first so many rows are looked at.
            seed: of the shuffles and of the noise.
            options: of `_insight.selection.variational_dropout`.

        Raises:
            UserError: an argument that means nothing here.
        """
        if method not in ("permutation", "dropout") or (options and method == "permutation"):
            found = repr(method) if not options else f"{method!r} with the options {sorted(options)}"
            raise UserError(f"importance: found {found}; expected method 'permutation' or 'dropout' and its options.")
        scorer = self.scorer(data, max_rows=max_rows)
        if method == "dropout":
            frame = selection.variational_dropout(scorer, seed=seed, track=track, **options)
            figure = bar_chart(list(frame["feature"]), list(frame["kept"]), None, "1 - learned dropout")
            notes = f"{scorer.rows:,} rows; 1 is needed, 0 is not"
            return View(f"{self.name}: importance by variational dropout", frame, figure, notes, open=False)
        frame = importance.permutation_importance(
            scorer, metric=metric, by=by, only=only, repeats=repeats, seed=seed, track=track
        )
        facts = frame.attrs
        label = f"{facts['metric']} lost when shuffled"
        figure = bar_chart(list(frame["input"]), list(frame["drop"]), list(frame["std"]), label)
        notes = f"{facts['rows']:,} rows, {facts['metric']} {facts['baseline']:.5g}, {repeats} shuffles each"
        return View(f"{self.name}: permutation importance by {by}", frame, figure, notes, open=False)

    def neighbours(
        self, feature: str, value: object, k: int = 10, *, among: Data | Sequence[object] | None = None
    ) -> View:
        """The values whose embeddings are nearest to that of a value, by cosine.

        Args:
            feature: a feature with a table.
            value: as it stands in the data.
            k: how many.
            among: rows, or a sequence of values, to look among; None for the evaluation rows (the training rows, where
                there are none), the first 200,000 of them. Without any rows, all rows of the table.

        Raises:
            UserError: no such feature; a value without a row; or values of a private column would be taken from rows
                that were not given here.
        """
        recommender = self.model
        found, _ = neighbours.feature_table(recommender, feature)
        candidates: Mapping[object, int] | None = None
        if among is not None and not isinstance(among, pd.DataFrame | str | os.PathLike):
            candidates = dict.fromkeys(among, 1)
        else:
            private = [field.input_name for field in self.config.message.data_config.input_fields if field.private]
            columns = self.column_values(found.inputs[0], among)
            if columns is not None and among is None and found.inputs[0] in private:
                raise UserError(
                    f"neighbours: the column {found.inputs[0]!r} is private, so its values are not looked up in the"
                    " data. Name the rows, or the values, by among=."
                )
            candidates = None if columns is None else neighbours.seen_values(found, columns)
        frame = neighbours.neighbours(recommender, feature, value, k, candidates)
        return View(f"{self.name}: neighbours of {feature} {value}", frame)


def compare(
    experiments: Sequence[Insights],
    data: Data | None = None,
    *,
    by: str | None = None,
    samples: int = 500,
    confidence: float = 0.95,
    max_rows: int | None = None,
    seed: int = 1,
) -> Comparison:
    """Trained experiments beside each other: differences of their configs, and metrics with bootstrap intervals.

    The first is what the others are compared with. All are scored on the same rows, and resampled together, so the
    intervals of differences are much narrower than those of the metrics themselves.

    Args:
        experiments: trained; at least one.
        data: rows; None for those that each evaluates on, which must be the same.
        by: a column whose values are drawn with all their rows, such as the user; None draws rows, and for metrics
            within groups, such as GAUC, groups.
        samples: of the bootstrap.
        confidence: of the intervals.
        max_rows: the first so many rows only.
        seed: of the bootstrap.

    Raises:
        UserError: no experiments, or rows that differ.
    """
    if not experiments:
        raise UserError("compare: found no experiments; expected at least one.")
    names = comparison.unique_names([experiment.name for experiment in experiments])
    columns = [by] if by else []
    scored = {}
    for name, experiment in zip(track(names, "scoring"), experiments, strict=True):
        scored[name] = experiment.score(data, max_rows=max_rows, columns=columns)
    metrics = comparison.metric_comparison(scored, by=by, samples=samples, confidence=confidence, seed=seed)
    messages = {n: experiment.config.message for n, experiment in zip(names, experiments, strict=True)}
    rows = len(next(iter(scored.values())))
    notes = f"{rows:,} rows; {confidence:.0%} intervals of {samples} bootstrap samples" + (f" by {by}" if by else "")
    return Comparison(comparison.config_differences(messages, ("model_dir",)), metrics, notes)


def _labels_and_scores(
    scored: scoring.ScoredRows, task: str | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    chosen = scored.task(task)
    return scored.labels[chosen.label], scored.predictions[chosen.score], scored.weight
