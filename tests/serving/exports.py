"""Exports of the tiny models, and what they must predict."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from tiny import MODELS, built, rows

from easyrec_lite._sources import describe_columns
from easyrec_lite.checkpoints import Checkpoint, save
from easyrec_lite.config import to_text
from easyrec_lite.inputs import as_dataset, open_source
from easyrec_lite.models import Recommender, model_tensors
from easyrec_lite.serving import export_model

# Crosses hash numbers and text differently, so they show whether lists keep their type.
CROSS = (
    MODELS["multi_tower"]
    .replace(
        "model_config {",
        """features { feature_name: "cross" input_names: ["item", "seen"] feature_type: ComboFeature
  combo_input_seps: ["", "|"] hash_bucket_size: 50 embedding_dim: 4 }
features { feature_name: "more" input_names: ["tags", "words"] feature_type: ComboFeature
  combo_input_seps: ["|", "|"] hash_bucket_size: 50 embedding_dim: 4 }
model_config {""",
    )
    .replace('["item", "price", "age_row"]', '["item", "price", "age_row", "cross", "more"]')
)
TEXTS = MODELS | {"cross": CROSS}
# Sides for the columns that the tiny configs say nothing of.
SIDES = (
    "data_config.input_fields[seen].side=USER",
    "data_config.input_fields[tags].side=USER",
    "data_config.input_fields[price].side=ITEM",
)
LISTS = ("tags", "seen", "words")
STEP = 7


@dataclass(frozen=True)
class Exported:
    """An export and where it comes from."""

    recommender: Recommender
    checkpoint: Checkpoint
    path: Path


def make(
    directory: Path, model: str, *edits: str, lists: bool = False, asset: Path | None = None, parity_rows: int = 0
) -> Exported:
    """Exports a model as it is after its start, dense variables far from theirs."""
    recommender = built(TEXTS[model], *edits)
    frame = request_rows(4, lists=lists)
    source = open_source(recommender.config.data_config, frame, columns=recommender.feature_columns)
    text = to_text(recommender.config)
    checkpoint = save(
        directory / "model",
        STEP,
        model_tensors(recommender),
        state={"columns": describe_columns(source)},
        metrics={"auc": 0.625},
        config=text,
    )
    assets = {asset.name: asset} if asset else None
    path = export_model(
        recommender.config,
        checkpoint,
        directory / "exports",
        config_text=text,
        asset_files=assets,
        rows=columns_of(recommender, request_rows(parity_rows, lists=lists)) if parity_rows else None,
    )
    return Exported(recommender, checkpoint, path)


def request_rows(count: int = 40, seed: int = 5, lists: bool = False) -> pd.DataFrame:
    """Rows as people send them: without labels, with empty cells, ids out of range, and lists if they are wanted."""
    frame = rows(count, seed).drop(columns=["click", "buy", "weight"]).astype(object)
    if lists:
        for name in LISTS:
            frame[name] = pd.Series([cell.split("|") if cell else [] for cell in frame[name]], dtype=object)
        frame["seen"] = pd.Series([[int(item) for item in cell] for cell in frame["seen"]], dtype=object)
    for place, name in enumerate(frame):
        frame.loc[place :: len(frame.columns) + 2, name] = None
    assert {12, 11} <= set(frame["user"]) or count < 40  # a table of 12 rows ends at 11
    return frame


def trained_predictions(recommender: Recommender, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """What the recommender itself predicts for rows that come by way of the inputs."""
    columns = columns_of(recommender, frame)
    batch = recommender.encode(columns, targets=False)
    return {name: value.numpy() for name, value in recommender.predict(batch).items()}


def columns_of(recommender: Recommender, frame: pd.DataFrame) -> dict[str, tf.Tensor | tf.RaggedTensor]:
    """Rows as training reads them."""
    names = recommender.feature_columns
    source = open_source(recommender.config.data_config, frame, columns=names, batch_size=len(frame), shuffle=False)
    (columns, _), *rest = as_dataset(source)
    assert not rest
    return dict(columns)


def served(columns: dict[str, tf.Tensor | tf.RaggedTensor], separator: str = "|") -> dict[str, tf.Tensor]:
    """Columns as the SavedModel takes them: lists joined to text."""
    result = {}
    for name, column in columns.items():
        if isinstance(column, tf.RaggedTensor):
            text = column if column.dtype == tf.string else tf.strings.as_string(column)
            column = tf.strings.reduce_join(text, axis=1, separator=separator)
        result[name] = column
    return result


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 1e-6) -> None:
    """Equal predictions; exports may have more of them, such as vectors as text."""
    assert set(expected) <= set(found)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance, err_msg=name)
