"""Runs of a tiny model on a Kafka topic."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd

from easyrec_lite import _runs
from easyrec_lite.config import PipelineConfig

COLUMNS = ("click", "user", "age", "tags", "at")

TEXT = """
model_dir: "model"
kafka_train_input {{ server: "{server}" topic: "{topic}" group: "tests" max_wait_ms: 100 {more} }}
train_config {{
  optimizer_config {{ adam_optimizer {{ learning_rate {{ constant_learning_rate {{ learning_rate: 0.01 }} }} }} }}
  save_checkpoints_steps: 0
  save_checkpoints_rows: 1000
  save_checkpoints_secs: 1  # as many more as the machine is slow: they must not matter
  keep_checkpoint_max: 3
  log_step_count_steps: 7
}}
stream_config {{ prequential {{ every_n_batches: 2 window_rows: 500 half_life_rows: 2000 }} }}
data_config {{
  batch_size: 32
  input_type: KafkaInput
  label_fields: "click"
  max_bad_row_share: 0.5
  input_fields {{ input_name: "click" input_type: INT64 }}
  input_fields {{ input_name: "user" input_type: INT64 private: true }}
  input_fields {{ input_name: "age" input_type: FLOAT }}
  input_fields {{ input_name: "tags" }}
  input_fields {{ input_name: "at" input_type: INT64 }}
}}
features {{ input_names: "user" num_buckets: 50 embedding_dim: 4 }}
features {{ input_names: "age" feature_type: RawFeature }}
features {{ input_names: "tags" feature_type: TagFeature num_buckets: 7 embedding_dim: 4 combiner: "mean" }}
export_config {{ exporter_type: "none" }}
model_config {{
  model_class: "MultiTower"
  feature_groups {{ group_name: "all" feature_names: ["user", "age", "tags"] }}
  multi_tower {{
    towers {{ input: "all" dnn {{ hidden_units: [4] dropout_ratio: 0.3 }} }}
    final_dnn {{ hidden_units: [3] }}
    l2_regularization: 0.01
  }}
}}
"""


def config(server: str, topic: str, model_dir: Path, *edits: str, bounded: bool = False) -> PipelineConfig:
    """A tiny model on a topic: for ever, or to the end of what is there."""
    text = TEXT.format(server=server, topic=topic, more="end_at_start: true" if bounded else "")
    path = model_dir.with_suffix(".config")
    path.write_text(text)
    return _runs.load(path, [f"model_dir={model_dir}", *edits])


def write_rows(path: Path, count: int) -> None:
    """Rows as Parquet, with times of now: brokers forget producers of old ones."""
    random = np.random.default_rng(7)
    user = random.integers(0, 50, count)
    frame = pd.DataFrame(
        {
            "click": (random.random(count) < 0.2 + 0.01 * user).astype(int),
            "user": user,
            "age": random.random(count).round(3),
            "tags": ["|".join(map(str, random.integers(0, 7, size))) for size in random.integers(0, 4, count)],
            "at": int(time.time()) + np.arange(count) // 100,
        }
    )
    frame.to_parquet(path)
