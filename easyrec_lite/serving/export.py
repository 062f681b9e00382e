"""Writes a trained model as a SavedModel that stock TF Serving loads."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from easyrec_lite.checkpoints import Checkpoint, CheckpointError, atomic_directory
from easyrec_lite.models import Recommender
from easyrec_lite.protos import pipeline_pb2
from easyrec_lite.serving.columns import SINGLE_INPUT, ServedColumn, read_lists, served_columns, split_single_input
from easyrec_lite.serving.restore import restored_recommender

DESCRIPTION = "description.json"
CONFIG = "pipeline.config"


class ServingModule(tf.Module):
    """The graph from raw columns to predictions, with the variables it needs and nothing else.

    Args:
        recommender: for inference, restored.
        columns: the inputs.
        separator: between the cells of the single-string form; None for one input a column.
    """

    def __init__(self, recommender: Recommender, columns: Sequence[ServedColumn], separator: str | None) -> None:
        super().__init__(name="serving")
        # What a SavedModel keeps: tables, dense variables, vocabularies. The recommender itself is no attribute, for
        # then each of its layers would be saved too, with a graph of its own.
        self.tables = dict(recommender.collection.variables_by_bucket)
        self.dense = [variable.value for variable in recommender.dense_variables]
        self.features = list(recommender.features.values())
        specs: Any = (
            [{column.name: column.spec for column in columns}]
            if separator is None
            else [{SINGLE_INPUT: tf.TensorSpec([None], tf.string, SINGLE_INPUT)}]
        )

        def serve(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            raw = inputs if separator is None else split_single_input(inputs[SINGLE_INPUT], columns, separator)
            batch = recommender.encode(read_lists(raw, columns), targets=False, distinct=False)
            predictions = recommender.forward(self.tables, batch)[0]
            return {**predictions, **_as_text(predictions)}

        self.serve = tf.function(serve, input_signature=specs, autograph=False)


def export_model(
    config: pipeline_pb2.EasyRecConfig,
    checkpoint: Checkpoint,
    export_dir: Path,
    *,
    config_text: str,
    asset_files: Mapping[str, Path] | None = None,
    version: int | None = None,
) -> Path:
    """Writes `<export_dir>/<version>/` and returns it; it appears under that name only when it is complete.

    Args:
        config: checked and complete.
        checkpoint: of a model of this config.
        export_dir: parent of the versions; made if missing.
        config_text: the completed config, for `assets/`.
        asset_files: further files for `assets/`, by name.
        version: a number higher than those that exist; the current time in seconds, or the next number, if None.

    Raises:
        CheckpointError: the checkpoint doesn't fit the config, or says nothing of the columns.
    """
    recommender = restored_recommender(config, checkpoint)
    # In the order in which they are declared: that is how EasyRec's clients join the one string.
    order = {field.input_name: place for place, field in enumerate(config.data_config.input_fields)}
    names = sorted(recommender.feature_columns, key=lambda name: order.get(name, len(order)))
    known = checkpoint.state.get("columns", {})
    if missing := [name for name in names if name not in known]:
        raise CheckpointError(f"{checkpoint.path} does not say how the columns {missing} are read; train once more.")
    columns = served_columns(names, recommender.features, known)
    separator = None if config.export_config.multi_placeholder else config.data_config.separator
    module = ServingModule(recommender, columns, separator)
    target = export_dir / str(version if version is not None else next_version(export_dir))
    with atomic_directory(target) as temporary:
        tf.saved_model.save(module, str(temporary), signatures={"serving_default": module.serve})
        assets = temporary / "assets"
        assets.mkdir(exist_ok=True)
        (assets / CONFIG).write_text(config_text)
        (assets / DESCRIPTION).write_text(json.dumps(_describe(recommender, columns, separator, checkpoint), indent=1))
        for name, path in (asset_files or {}).items():
            shutil.copyfile(path, assets / name)
    return target


def versions(export_dir: Path) -> list[Path]:
    """The version folders below `export_dir`, oldest first."""
    found = [path for path in export_dir.glob("*") if path.name.isdigit() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def next_version(export_dir: Path) -> int:
    """A version number higher than any below `export_dir`, folders taken back by renaming included."""
    numbers = (number for path in export_dir.glob("*") for number in re.findall(r"\d+", path.name))
    return max([int(time.time()), *(int(number) + 1 for number in numbers)])


def exported_step(version: Path) -> int:
    """The training step of an export."""
    return int(json.loads((version / "assets" / DESCRIPTION).read_text())["step"])


def _describe(
    recommender: Recommender, columns: Sequence[ServedColumn], separator: str | None, checkpoint: Checkpoint
) -> dict[str, Any]:
    return {
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "columns": [column.to_json() for column in columns],
        "single_input_separator": separator,
        "features": [
            {"name": name, "inputs": list(feature.inputs), "num_ids": feature.num_ids}
            for name, feature in recommender.features.items()
        ],
    }


def _as_text(predictions: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """EasyRec's `user_emb` and `item_emb`: vectors as text, numbers joined by commas."""
    return {
        f"{side}_emb": tf.strings.reduce_join(
            tf.strings.as_string(predictions[f"{side}_tower_emb"]), axis=1, separator=","
        )
        for side in ("user", "item")
        if f"{side}_tower_emb" in predictions
    }
