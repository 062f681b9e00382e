"""Experiments in notebooks and scripts: train, evaluate, predict, export, and look into what came out.

    import easyrec_lite as er

    experiment = er.Experiment("deepfm.config")
    experiment.train()
    experiment.importance()

Each method does what a command does, with the same code: `train`, `evaluate`, `predict`, `export`, `check`, `insight`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from easyrec_lite import _runs, _sources, _training
from easyrec_lite._exporters import asset_files
from easyrec_lite._html import Html
from easyrec_lite._insight import curves, scoring
from easyrec_lite._notebook.configs import Config, Problems, as_config, load_config
from easyrec_lite._notebook.drawing import explain
from easyrec_lite._notebook.html import block, heading, table
from easyrec_lite._notebook.insights import Data, Insights, compare
from easyrec_lite._notebook.progress import NotebookDisplay, in_notebook
from easyrec_lite._notebook.views import Drawing, Metrics, View
from easyrec_lite._prediction import predictions, refuse_same_names
from easyrec_lite._progress import ProgressDisplay
from easyrec_lite.checkpoints import Checkpoint, find, latest
from easyrec_lite.config import PipelineConfig, to_text
from easyrec_lite.errors import UserError
from easyrec_lite.features import Column
from easyrec_lite.inputs import BadRows, Source, as_dataset, input_errors, open_source
from easyrec_lite.models import Recommender
from easyrec_lite.serving import export_model
from easyrec_lite.training import Evaluator, FitResult

__all__ = ["Config", "Experiment", "Problems", "compare", "explain", "load_config"]

# What training leaves in a model directory; versions that were published stay, for somebody may serve them.
_TRAINED = (
    "checkpoints",
    "export",
    "ledger",
    "tensorboard",
    "alarms.jsonl",
    "bad_rows.jsonl",
    "metrics.jsonl",
    "pipeline.config",
    "published.jsonl",
    "statistics.json",
)
_PARITY_ROWS = 1000
_VALUE_ROWS = 200_000  # that neighbours looks for values in


class Experiment(Insights):
    """A config with what training makes of it.

        experiment = Experiment("din.config", name="DIN")
        experiment.train(frame, eval_data=later)
        experiment.evaluate()["auc"]
        experiment.predict(rows)

    Args:
        config: a path, the text of a config, or a `Config`, which is copied.
        name: for displays and comparisons; by default that of the config.
        model_dir: where the run is kept: by default the config's `model_dir`; where that is not set, a temporary
            folder that goes away with the process (the Python object may not outlive it).

    Attributes:
        config: its own; change it before training.
        name: see above.
        model_dir: see above.
        result: how the last training of this object ended; None before.

    Raises:
        ConfigError: the config can't be read or is wrong.
    """

    def __init__(
        self,
        config: Config | str | os.PathLike[str],
        name: str | None = None,
        model_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self.config = as_config(config).copy(name)
        self.name = self.config.name
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if model_dir is None and not self.config.message.model_dir:
            self._temporary = tempfile.TemporaryDirectory(prefix="easyrec_lite_")
            model_dir = self._temporary.name
        self.model_dir = Path(model_dir if model_dir is not None else self.config.message.model_dir)
        self.result: FitResult | None = None
        self._eval_data: Data | None = None
        self._restored: tuple[str, Recommender] | None = None

    @classmethod
    def open(cls, model_dir: str | os.PathLike[str], name: str | None = None) -> Experiment:
        """The experiment that was trained into a folder, by `train` here or by the command.

        Raises:
            UserError: the folder holds no `pipeline.config`.
        """
        path = Path(model_dir) / _training.CONFIG_FILE
        if not path.exists():
            raise UserError(f"{model_dir}: found no {_training.CONFIG_FILE}; expected the model_dir of a training.")
        return cls(path, name or Path(model_dir).name, model_dir)

    # ---- what the commands do

    def check(self) -> Problems:
        """All problems of the config."""
        return self.config.check()

    def train(
        self,
        data: Data | None = None,
        eval_data: Data | None = None,
        *,
        resume: bool = False,
        replace: bool = False,
        progress: bool = True,
    ) -> Metrics:
        """Trains, evaluates and writes checkpoints, as `python -m easyrec_lite.train`.

        Args:
            data: rows to train on; None for those of the config. Files are noted in the config, frames are not.
            eval_data: rows to evaluate on, here and later by default; None for those of the config.
            resume: go on from the newest checkpoint of `model_dir`.
            replace: remove what an earlier training left in `model_dir` first.
            progress: show how far it is.

        Returns:
            The metrics of the last evaluation.

        Raises:
            ConfigError: the config is wrong.
            UserError: a model is there already and neither `resume` nor `replace` is asked for; both are.
            InputError: the rows can't be read.
        """
        if resume and replace:
            raise UserError("train: found resume and replace; expected at most one of them.")
        frame, eval_frame = self._frame("train_input_path", data), self._frame("eval_input_path", eval_data)
        pipeline = self._pipeline()
        if replace:
            self._clear()
        elif not resume and self.trained:
            raise UserError(
                f"{self.model_dir} holds a trained model already. Go on with it by train(resume=True), start over by"
                " train(replace=True), or keep it and give the new Experiment another model_dir."
            )
        display = self._display(pipeline) if progress else None
        options = _training.TrainOptions(resume, display=display, rows=frame, eval_rows=eval_frame)
        self._restored = None
        self._eval_data = eval_data if eval_data is not None else self._eval_data
        try:
            self.result = _training.train(pipeline, options)
        finally:
            if display is not None:
                display.close()
        return Metrics(self.result.metrics, self.result.step, f"{self.name}: last evaluation")

    def evaluate(self, data: Data | None = None) -> Metrics:
        """Evaluates the newest checkpoint, as `python -m easyrec_lite.evaluate`.

        Args:
            data: rows; None for those that training evaluated on, else those of the config.

        Raises:
            CheckpointError: nothing is trained.
            UserError: no rows are named.
        """
        pipeline = self._pipeline()
        with _runs.late_errors(pipeline):
            recommender = self.model
            source = self._source(data)
            try:
                with input_errors(source):
                    limit = pipeline.message.eval_config.num_examples
                    metrics = Evaluator(recommender, as_dataset(source), limit)()
            finally:
                source.close()
        return Metrics(metrics, self.checkpoint.step, f"{self.name}: evaluation")

    def predict(self, data: Data, keep: Sequence[str] = (), batch_size: int = 4096) -> pd.DataFrame:
        """Predictions of the newest checkpoint, as `python -m easyrec_lite.predict` writes them.

        Args:
            data: rows; labels are not needed.
            keep: columns of the data to hand on.
            batch_size: rows a call of the model.

        Returns:
            One row a row of data, with the index of a frame; columns: those kept, then the predictions by name. A
            prediction that is a vector is one array a cell.

        Raises:
            CheckpointError: nothing is trained.
            InputError: a row can't be read: in contrast to training, none is left out.
        """
        pipeline = self._pipeline()
        recommender = self.model
        bad_rows = BadRows.from_config(pipeline.message.data_config)
        bad_rows.max_share, bad_rows.min_rows = 0.0, 1
        with _runs.late_errors(pipeline):
            source = open_source(
                pipeline.message.data_config,
                data,
                columns=recommender.feature_columns,
                batch_size=batch_size,
                shuffle=False,
                bad_rows=bad_rows,
                keep=list(dict.fromkeys(keep)),
                types=_sources.trained_types(self.checkpoint),
            )
            try:
                parts = [_as_frame(kept, values) for kept, values in predictions(recommender, source)]
            finally:
                source.close()
        result = pd.concat(parts, ignore_index=True)
        if isinstance(data, pd.DataFrame):
            result.index = data.index
        return result

    def export(self, directory: str | os.PathLike[str]) -> Path:
        """Writes a SavedModel to `directory/<version>/`, as `python -m easyrec_lite.export`; returns its path.

        What it predicts is compared with the trainer's on the first evaluation rows, if there are any.

        Raises:
            CheckpointError: nothing is trained.
        """
        pipeline = self._pipeline()
        has_rows = self._eval_data is not None or _sources.can_evaluate(pipeline.message)
        rows = self.rows(max_rows=_PARITY_ROWS) if has_rows else None
        text, assets = to_text(pipeline.message), asset_files(pipeline.message)
        with _runs.late_errors(pipeline):
            return export_model(
                pipeline.message, self.checkpoint, Path(directory), config_text=text, asset_files=assets, rows=rows
            )

    # ---- what is there

    @property
    def trained(self) -> bool:
        """Whether the model directory holds a checkpoint."""
        return self.model_dir.exists() and latest(self.model_dir) is not None

    @property
    def checkpoint(self) -> Checkpoint:
        """The newest.

        Raises:
            CheckpointError: there is none.
        """
        return find(self.model_dir)

    @property
    def model(self) -> Recommender:
        """The model with the weights of the newest checkpoint, for inference.

        Raises:
            CheckpointError: there is none, or it is of another config.
        """
        checkpoint = self.checkpoint
        if self._restored is None or self._restored[0] != str(checkpoint.path):
            pipeline = self._pipeline()
            with _runs.late_errors(pipeline):
                self._restored = str(checkpoint.path), _runs.restored(pipeline.message, checkpoint)
        return self._restored[1]

    @property
    def metrics(self) -> Metrics:
        """Those of the newest checkpoint that was evaluated, as training noted them."""
        checkpoint = self.checkpoint
        return Metrics(checkpoint.metrics, checkpoint.step, f"{self.name}: evaluation of the checkpoint")

    @property
    def history(self) -> pd.DataFrame:
        """Losses and metrics by step: one row a record of `metrics.jsonl`, of the `kind` train or evaluation."""
        return curves.learning_history(self.model_dir / _training.METRICS_FILE)

    @property
    def parameters(self) -> View:
        """Every table and every dense variable with its shape and number of weights; needs no training."""
        pipeline = self._pipeline()
        with _runs.late_errors(pipeline):
            recommender = Recommender(pipeline.message, training=False, tables=False)
            recommender.build()
        rows: list[tuple[str, str, str, int]] = [
            ("table", spec.name, f"{spec.rows:,} x {spec.dim}", spec.rows * spec.dim)
            for spec in recommender.collection.tables.values()
        ]
        rows += [
            ("layer", variable.path, " x ".join(map(str, variable.shape)) or "1", int(np.prod(variable.shape)))
            for variable in recommender.trainable_variables
        ]
        frame = pd.DataFrame(rows, columns=["kind", "name", "shape", "weights"])
        total = frame.groupby("kind")["weights"].sum()
        notes = ", ".join(f"{total.get(kind, 0):,} in {kind}s" for kind in ("table", "layer"))
        return View(f"{self.name}: parameters", frame, notes=notes)

    def explain(self) -> Drawing:
        """See `easyrec_lite.explain`."""
        return explain(self.config)

    # ---- rows

    def rows(
        self, data: Data | None = None, *, max_rows: int | None = None, columns: Sequence[str] = ()
    ) -> dict[str, Column]:
        """Raw columns of the first rows, as features read them.

        Args:
            data: as in `evaluate`.
            max_rows: at most so many; None for all.
            columns: further ones than the model's.
        """
        source = self._source(data, columns)
        return scoring.read_rows(source, max_rows)

    def scorer(
        self, data: Data | None = None, *, max_rows: int | None = None, columns: Sequence[str] = ()
    ) -> scoring.Scorer:
        """See Insights."""
        with _runs.late_errors(self._pipeline()):
            return scoring.Scorer(self.model, self.rows(data, max_rows=max_rows, columns=columns))

    def column_values(self, column: str, data: Data | None = None) -> dict[str, Column] | None:
        """See Insights."""
        message = self.config.message
        data = data if data is not None else self._eval_data
        data = data if data is not None else message.eval_input_path or message.train_input_path
        if not isinstance(data, pd.DataFrame) and not data:
            return None
        source = open_source(message.data_config, data, columns=[column], shuffle=False)
        return scoring.read_rows(source, _VALUE_ROWS)

    # ---- displays

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [("model", self.config.message.model_config.model_class)]
        rows += [] if self._temporary else [("model_dir", str(self.model_dir))]
        rows += [("trained", f"to step {self.checkpoint.step:,}" if self.trained else "not yet")]
        rows += list(self.metrics.values.items()) if self.trained else []
        return block(heading(self.name), table(("", ""), rows), Html(self.config._repr_html_()))

    def __repr__(self) -> str:
        state = f"trained to step {self.checkpoint.step:,}" if self.trained else "not trained yet"
        return f"Experiment {self.name!r} ({self.config.message.model_config.model_class}), {state}"

    # ---- helpers

    def _pipeline(self) -> PipelineConfig:
        """The config as a run takes it.

        Raises:
            ConfigError: with all problems.
        """
        pipeline = self.config.checked()
        pipeline.message.model_dir = str(self.model_dir)
        return pipeline

    def _frame(self, field: str, data: Data | None) -> pd.DataFrame | None:
        """A frame as it is; files are noted in the config."""
        if isinstance(data, pd.DataFrame) or data is None:
            return data
        files = [data] if isinstance(data, str | os.PathLike) else list(data)
        setattr(self.config.message, field, ",".join(os.fspath(file) for file in files))
        return None

    def _display(self, pipeline: PipelineConfig) -> ProgressDisplay:
        steps = pipeline.message.train_config.num_steps or None
        return NotebookDisplay(steps, self.name) if in_notebook() else ProgressDisplay(steps)

    def _clear(self) -> None:
        for name in _TRAINED:
            path = self.model_dir / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _source(self, data: Data | None, columns: Sequence[str] = ()) -> Source:
        """Evaluation rows, once."""
        data = data if data is not None else self._eval_data
        message = self.config.message
        if data is None and not _sources.can_evaluate(message):
            raise UserError("No rows to look at: the config has no eval_input_path. Give them, as a frame or files.")
        types = _sources.trained_types(self.checkpoint)
        return _sources.evaluation_source(message, self.model, data, columns, types)


def _as_frame(kept: Mapping[str, pa.Array], values: Mapping[str, np.ndarray]) -> pd.DataFrame:
    refuse_same_names(kept, values)
    # Whole numbers beside empty cells would become floats, and large ones be rounded.
    columns: dict[str, Any] = {name: column.to_pandas(integer_object_nulls=True) for name, column in kept.items()}
    columns |= {name: list(value) if value.ndim > 1 else value for name, value in values.items()}
    return pd.DataFrame(columns)
