"""Exports during and after training, as `export_config.exporter_type` says."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from easyrec_lite.checkpoints import Checkpoint
from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.protos import pipeline_pb2
from easyrec_lite.serving import (
    CONFIG,
    DESCRIPTION,
    export_model,
    exported_step,
    keep_newest,
    remove_leftovers,
    versions,
)
from easyrec_lite.streaming.publishing import ModelWriter
from easyrec_lite.training import BestMetric, Callback, Trainer


class Exporter(Callback):
    """Writes exports below `model_dir/export/<type>`.

    `latest` exports at each checkpoint, `best` at each checkpoint that beats all before, `final` once at the end.
    `exports_to_keep` of them stay. An export that a kill prevented is made up for when the run goes on.

    Args:
        config: checked and complete.
        config_text: the completed config, for the exports' assets.
        directory: parent of the versions.
        best: follows the metric; needed for `best`.
    """

    def __init__(
        self, config: pipeline_pb2.EasyRecConfig, config_text: str, directory: Path, best: BestMetric | None
    ) -> None:
        self._config = config
        self._write = model_writer(config, config_text, directory)
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
        self._write(checkpoint)
        self._exported_step = checkpoint.step
        keep_newest(self._directory, max(1, self._config.export_config.exports_to_keep))


def model_writer(config: pipeline_pb2.EasyRecConfig, config_text: str, directory: Path) -> ModelWriter:
    """What writes the versions of a model into `directory`, for exporters and `streaming.Publisher`.

    Args:
        config: checked and complete.
        config_text: the completed config, for the exports' assets.
        directory: parent of the versions.

    Raises:
        ConfigError: files of `export_config.asset_files` are not there: now, not after hours of training.
    """
    assets = asset_files(config)
    return functools.partial(export_model, config, export_dir=directory, config_text=config_text, asset_files=assets)


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
