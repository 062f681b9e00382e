"""Exports during and after training, as `export_config.exporter_type` says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from easyrec_lite._sources import sample_path, sample_rows
from easyrec_lite.checkpoints import Checkpoint
from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.features import Column, Columns, Encoded
from easyrec_lite.inputs import InputError
from easyrec_lite.models import Recommender
from easyrec_lite.protos import pipeline_pb2
from easyrec_lite.serving import (
    CONFIG,
    DESCRIPTION,
    ParityError,
    export_model,
    exported_step,
    keep_newest,
    remove_leftovers,
    versions,
)
from easyrec_lite.streaming.publishing import ModelWriter
from easyrec_lite.terminal import warn
from easyrec_lite.training import BestMetric, Callback, Trainer

RowGiver = Callable[[], Columns | None]

# Training waits while they are replayed: fewer than the export command takes. An export of the samples' MultiTower took
# 4.4 s of CPU without rows, 8.8 with 64, 10 with 256, 19 with 1,000.
_ROWS = 256


class ExportRows(Callback):
    """Real rows for the exports that a training run makes: each is compared with the trainer on them.

    They are the first of the evaluation data, else of the training data, read when they are first asked for. A stream
    without files can't be read twice: there the first rows that it brings to this process are kept.

    Args:
        config: checked and complete.
        recommender: says which columns are read.
        types: what training reads them as, by name.
        rows: trained on in place of what the config names, if not None.
        eval_rows: evaluated on in place of what the config names, if not None.
        tell: shows a line to the user.
    """

    def __init__(
        self,
        config: pipeline_pb2.EasyRecConfig,
        recommender: Recommender,
        types: Mapping[str, str],
        rows: pd.DataFrame | None = None,
        eval_rows: pd.DataFrame | None = None,
        tell: Callable[[str], None] = warn,
    ) -> None:
        self._config, self._recommender, self._types, self._tell = config, recommender, types, tell
        self._frame = eval_rows if eval_rows is not None or config.eval_input_path else rows
        has_data = self._frame is not None or bool(sample_path(config))
        is_wanted = config.export_config.exporter_type != "none" or config.stream_config.HasField("publish")
        self._first = _FirstRows(recommender.feature_columns) if is_wanted and not has_data else None
        self._rows: Columns | None = None
        self._is_read = False

    def observe(
        self,
        encoded: Mapping[str, Encoded],
        labels: Mapping[str, tf.Tensor],
        columns: Columns,
        missing: Mapping[str, tf.Tensor],
        newest: tf.Tensor,
        position: tf.Tensor,
    ) -> tf.Operation | None:
        """An op that keeps the first rows of a stream."""
        return None if self._first is None else self._first.keep(columns)

    def __call__(self) -> Columns | None:
        """Raw columns as training reads them; None where there are no rows, of which the user is told."""
        if self._is_read:
            return self._rows
        why = "there are none yet"
        if self._first is not None:
            self._rows = self._first.columns()
        else:
            self._is_read = True
            try:
                self._rows = sample_rows(self._config, self._recommender, _ROWS, self._frame, self._types)
            except InputError as error:
                why = str(error)
        if self._rows is None:
            self._tell(f"exports are not compared with the trainer, for want of rows: {why}")
        return self._rows


class _FirstRows:
    """Keeps the raw columns of the first rows of an input pipeline; the batches that come then only see a flag."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._specs: list[tuple[tf.DType, int]] = []  # of each column: type, and number of arrays
        self._kept: list[tuple[np.ndarray, ...]] = []
        self._count = 0
        with tf.device("CPU:0"):  # where input pipelines run
            self._wants_more = tf.Variable(True, trainable=False)

    def keep(self, columns: Columns) -> tf.Operation:
        """An op for the graph of the pipeline."""
        chosen = [columns[name] for name in self._names]
        self._specs = [(column.dtype, len(_parts(column))) for column in chosen]

        def look() -> tf.Tensor:
            first = [column[:_ROWS] for column in chosen]
            rows = first[0].nrows() if isinstance(first[0], tf.RaggedTensor) else tf.shape(first[0], tf.int64)[0]
            arrays = [part for column in first for part in _parts(column)]
            more = tf.reshape(tf.numpy_function(self._keep, [rows, *arrays], tf.bool), [])
            with tf.control_dependencies([self._wants_more.assign(more, read_value=False)]):
                return tf.identity(more)

        return tf.cond(self._wants_more, look, lambda: tf.constant(False)).op

    def _keep(self, rows: np.int64, *arrays: np.ndarray) -> np.bool_:
        self._kept.append(arrays)
        self._count += int(rows)
        return np.bool_(self._count < _ROWS)

    def columns(self) -> Columns | None:
        """What was kept by now; None if that is nothing."""
        batches = [list(self._split(arrays)) for arrays in list(self._kept)]
        joined = [tf.concat(column, axis=0)[:_ROWS] for column in zip(*batches, strict=True)]
        return dict(zip(self._names, joined, strict=True)) if joined else None

    def _split(self, arrays: tuple[np.ndarray, ...]) -> Iterator[Column]:
        left = iter(arrays)
        for dtype, parts in self._specs:
            values = tf.constant(next(left), dtype)
            yield values if parts == 1 else tf.RaggedTensor.from_row_splits(values, next(left))


def _parts(column: Column) -> list[tf.Tensor]:
    return [column.values, column.row_splits] if isinstance(column, tf.RaggedTensor) else [column]


class Exporter(Callback):
    """Writes exports below `model_dir/export/<type>`.

    `latest` exports at each checkpoint, `best` at each checkpoint that beats all before, `final` once at the end.
    `exports_to_keep` of them stay. An export that a kill prevented is made up for when the run goes on. One that does
    not predict what the trainer predicts is not written; the user is told, and training goes on.

    Args:
        config: checked and complete.
        config_text: the completed config, for the exports' assets.
        directory: parent of the versions.
        best: follows the metric; needed for `best`.
        rows: gives those that exports are compared with the trainer on.
        tell: shows a line to the user.
    """

    def __init__(
        self,
        config: pipeline_pb2.EasyRecConfig,
        config_text: str,
        directory: Path,
        best: BestMetric | None,
        rows: RowGiver | None = None,
        tell: Callable[[str], None] = warn,
    ) -> None:
        self._config = config
        self._write = model_writer(config, config_text, directory, rows)
        self._tell = tell
        self._directory = directory
        self._best = best
        self._exported_step: int | None = None

    def on_start(self, trainer: Trainer) -> None:
        """See Callback."""
        remove_leftovers(self._directory)
        if trainer.checkpoint is not None:
            if trainer.checkpoint.step in map(exported_step, versions(self._directory)):
                self._exported_step = trainer.checkpoint.step
            self.on_checkpoint(trainer, trainer.checkpoint)

    def on_checkpoint(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        """See Callback."""
        if self._config.export_config.exporter_type != "final":
            self._export(checkpoint)

    def on_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """See Callback."""
        if trainer.checkpoint is not None:
            self._export(trainer.checkpoint)

    def _export(self, checkpoint: Checkpoint) -> None:
        is_best = self._best is not None and self._best.best_step == checkpoint.step
        wanted = is_best or self._config.export_config.exporter_type != "best"
        if not wanted or checkpoint.step in (0, self._exported_step):  # of step 0 there is nothing to export yet
            return
        self._exported_step = checkpoint.step
        try:
            self._write(checkpoint)
        except ParityError as error:
            self._tell(f"the model of step {checkpoint.step:,} is not exported: {error}")
            return
        keep_newest(self._directory, max(1, self._config.export_config.exports_to_keep))


def model_writer(
    config: pipeline_pb2.EasyRecConfig, config_text: str, directory: Path, rows: RowGiver | None = None
) -> ModelWriter:
    """What writes the versions of a model into `directory`, for exporters and `streaming.Publisher`.

    Args:
        config: checked and complete.
        config_text: the completed config, for the exports' assets.
        directory: parent of the versions.
        rows: gives those that versions are compared with the trainer on.

    Raises:
        ConfigError: files of `export_config.asset_files` are not there: now, not after hours of training.
    """
    assets = asset_files(config)

    def write(checkpoint: Checkpoint, *, version: int | None = None, facts: Mapping[str, Any] | None = None) -> Path:
        return export_model(
            config,
            checkpoint,
            directory,
            config_text=config_text,
            asset_files=assets,
            version=version,
            facts=facts,
            rows=rows() if rows is not None else None,
        )

    return write


def asset_files(config: pipeline_pb2.EasyRecConfig) -> dict[str, Path]:
    """The files of `export_config.asset_files`, `name:path` or a path, by name in the export.

    Raises:
        ConfigError: files that are not there, or names that can't be.
    """
    files: dict[str, Path] = {}
    problems = []
    for place, entry in enumerate(config.export_config.asset_files):
        name, colon, path = entry.partition(":")
        name, path = (name, path) if colon else (Path(entry).name, entry)
        where = f"export_config.asset_files[{place}]"
        if not Path(path).is_file():
            problems.append(Problem(where, f"no file {path!r}", "NAME:PATH or the path of a file"))
        if name in (CONFIG, DESCRIPTION, *files) or Path(name).name != name:
            expected = f"a name of its own, without folders, other than {CONFIG} and {DESCRIPTION}"
            problems.append(Problem(where, f"the name {name!r}", expected, "say another by NAME:PATH"))
        files[name] = Path(path)
    if problems:
        raise ConfigError(problems)
    return files
