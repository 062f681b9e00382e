"""Writes a trained model as a SavedModel that stock TF Serving loads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from easyrec_lite.checkpoints import Checkpoint, CheckpointError, atomic_directory
from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.features import Columns
from easyrec_lite.layers import folded_batch_norms
from easyrec_lite.models import Recommender
from easyrec_lite.protos import export_pb2, pipeline_pb2
from easyrec_lite.serving.columns import ServedColumn, served_columns
from easyrec_lite.serving.loaded import LoadedModel
from easyrec_lite.serving.module import ServingModule
from easyrec_lite.serving.parity import TOLERANCE, compare
from easyrec_lite.serving.restore import restored_recommender
from easyrec_lite.serving.user_cache import CacheOptions
from easyrec_lite.serving.versions import DESCRIPTION, next_version
from easyrec_lite.serving.warmup import write_warmup

CONFIG = "pipeline.config"
PARITY = "parity.json"


def export_model(
    config: pipeline_pb2.EasyRecConfig,
    checkpoint: Checkpoint,
    export_dir: Path,
    *,
    config_text: str,
    asset_files: Mapping[str, Path] | None = None,
    version: int | None = None,
    facts: Mapping[str, Any] | None = None,
    rows: Columns | None = None,
    tolerance: float = TOLERANCE,
) -> Path:
    """Writes `<export_dir>/<version>/` and returns it; it appears under that name only when it is complete.

    Args:
        config: checked and complete.
        checkpoint: of a model of this config.
        export_dir: parent of the versions; made if missing.
        config_text: the completed config, for `assets/`.
        asset_files: further files for `assets/`, by name.
        version: a number higher than those that exist; the current time in seconds, or the next number, if None.
        facts: what else the description says, such as when the model was published and why.
        rows: raw columns of real rows, as training reads them. The export is compared with the trainer on them, and
            made to warm up a server by them, but for values of private columns; None leaves both out.
        tolerance: of that comparison, absolute and relative.

    Raises:
        CheckpointError: the checkpoint doesn't fit the config, or says nothing of the columns.
        ParityError: the export doesn't predict what the trainer predicts; then there is no such version.
    """
    recommender = restored_recommender(config, checkpoint)
    # In the order in which they are declared: that is how EasyRec's clients join the one string.
    order = {field.input_name: place for place, field in enumerate(config.data_config.input_fields)}
    names = sorted(recommender.feature_columns, key=lambda name: order.get(name, len(order)))
    known = checkpoint.state.get("columns", {})
    if missing := [name for name in names if name not in known]:
        raise CheckpointError(f"{checkpoint.path} does not say how the columns {missing} are read; train once more.")
    columns = served_columns(names, recommender.features, known, recommender.user_columns)
    separator = None if config.export_config.multi_placeholder else config.data_config.separator
    version = version if version is not None else next_version(export_dir)
    cache = _cache_options(config, columns)
    target = export_dir / str(version)
    with atomic_directory(target) as temporary:
        with folded_batch_norms(recommender.groups, recommender.model):
            module = ServingModule(recommender, columns, separator, version, cache, table_type(config))
            module.save(temporary)
        assets = temporary / "assets"
        assets.mkdir(exist_ok=True)
        (assets / CONFIG).write_text(config_text)
        told = _describe(recommender, module, columns, separator, checkpoint) | dict(facts or {})
        (assets / DESCRIPTION).write_text(json.dumps(told, indent=1))
        for name, path in (asset_files or {}).items():
            shutil.copyfile(path, assets / name)
        if rows is not None:
            with LoadedModel(temporary) as session:
                report = compare(recommender, session, columns, rows, separator=separator, tolerance=tolerance)
                (assets / PARITY).write_text(json.dumps(report.to_json(), indent=1))
                report.raise_if_failed()
                private = {field.input_name for field in config.data_config.input_fields if field.private}
                write_warmup(temporary, session, columns, rows, separator, private)
    return target


def table_type(config: pipeline_pb2.EasyRecConfig) -> str:
    """How exports hold the rows of tables: "float32", "bfloat16" or "int8"."""
    return str(export_pb2.TableType.Name(config.export_config.table_type)).lower()


def _cache_options(config: pipeline_pb2.EasyRecConfig, columns: Sequence[ServedColumn]) -> CacheOptions | None:
    """What `export_config.user_cache` says.

    Raises:
        ConfigError: no column of the user is found by its key, or states that depend on more would never grow old.
    """
    if not config.export_config.HasField("user_cache"):
        return None
    cache, path = config.export_config.user_cache, "export_config.user_cache"
    own = [column.name for column in columns if column.of_user]
    problems = []
    if cache.slots < 1:
        problems.append(Problem(f"{path}.slots", "0", "at least 1"))
    if not own:
        hint = "declare the side of the columns in data_config.input_fields"
        problems.append(Problem(path, "no column with side: USER", "columns of the user, whose state is kept", hint))
    if cache.key and cache.key not in own:
        problems.append(Problem(f"{path}.key", repr(cache.key), f"a column with side: USER, such as {own[:3]}"))
    if cache.max_age_seconds < 0 or (cache.key and not cache.max_age_seconds):
        expected = "seconds above 0: by key alone, nobody sees that other columns changed"
        problems.append(Problem(f"{path}.max_age_seconds", f"{cache.max_age_seconds:g}", expected))
    if problems:
        raise ConfigError(problems)
    return CacheOptions(cache.slots, cache.key, cache.max_age_seconds)


def _describe(
    recommender: Recommender,
    module: ServingModule,
    columns: Sequence[ServedColumn],
    separator: str | None,
    checkpoint: Checkpoint,
) -> dict[str, Any]:
    return {
        "step": checkpoint.step,
        "metrics": checkpoint.metrics,
        "columns": [column.to_json() for column in columns],
        "single_input_separator": separator,
        "features": [
            {
                "name": name,
                "inputs": list(feature.inputs),
                "num_ids": feature.num_ids,
                "side": recommender.sides[name].value,
            }
            for name, feature in recommender.features.items()
        ],
        "signatures": module.describe(),
        "user_state": [
            {
                "name": tensor.name,
                "dtype": tensor.spec.dtype.name,
                "shape": tensor.spec.shape.as_list(),
                "operation": tensor.source,
                "typical_bytes": tensor.typical_bytes,
            }
            for tensor in module.state
        ],
        "costs": {name: asdict(cost) for name, cost in module.costs.items()},
    }
