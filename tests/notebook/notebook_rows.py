"""A small DIN and rows for it, of which one column decides the labels."""

from __future__ import annotations

import numpy as np
import pandas as pd

CONFIG = """
train_config {
  optimizer_config { adam_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.02 } } } }
  num_steps: 60
  save_checkpoints_steps: 30
  log_step_count_steps: 10
}
eval_config { metrics_set { auc {} } metrics_set { gauc { uid_field: "user" } } metrics_set { logloss {} } }
data_config {
  batch_size: 64
  num_epochs: 100
  label_fields: "click"
  input_fields { input_name: "click" input_type: INT64 }
  input_fields { input_name: "user" input_type: INT64 side: USER private: true }
  input_fields { input_name: "item" input_type: INT64 side: ITEM }
  input_fields { input_name: "word" side: ITEM }
  input_fields { input_name: "noise" input_type: INT64 }
  input_fields { input_name: "seen" }
  input_fields { input_name: "seen_word" }
}
features { input_names: "user" num_buckets: 40 embedding_dim: 4 }
features { input_names: "item" num_buckets: 20 embedding_dim: 4 embedding_name: "item" }
features { input_names: "word" hash_bucket_size: 100 embedding_dim: 4 embedding_name: "word" }
features { input_names: "noise" num_buckets: 5 embedding_dim: 4 }
features { input_names: "seen" feature_type: SequenceFeature num_buckets: 20 embedding_dim: 4 embedding_name: "item" }
features { input_names: "seen_word" feature_type: SequenceFeature hash_bucket_size: 100 embedding_dim: 4
  embedding_name: "word" }
model_config {
  model_class: "MultiTowerDIN"
  feature_groups { group_name: "all" feature_names: ["user", "item", "word", "noise"] }
  seq_att_groups {
    group_name: "history"
    seq_att_map { key: ["item", "word"] hist_seq: ["seen", "seen_word"] }
  }
  multi_tower {
    towers { input: "all" dnn { hidden_units: [16] use_bn: false } }
    din_towers { input: "history" dnn { hidden_units: [8, 1] use_bn: false } }
    final_dnn { hidden_units: [8] use_bn: false }
  }
  embedding_initializer { truncated_normal_initializer { stddev: 0.1 } }
}
"""


def make_rows(count: int, seed: int) -> pd.DataFrame:
    """Clicks depend on the item alone: items below 10 are clicked at 80 %, the others at 20 %."""
    rng = np.random.default_rng(seed)
    item = rng.integers(0, 20, count)
    lengths = rng.integers(0, 4, count)
    seen = [rng.integers(0, 20, length) for length in lengths]
    return pd.DataFrame(
        {
            "click": (rng.random(count) < np.where(item < 10, 0.8, 0.2)).astype(np.int64),
            "user": rng.integers(0, 40, count),
            "item": item,
            "word": [f"w{value % 7}" for value in rng.integers(0, 50, count)],
            "noise": rng.integers(0, 5, count),
            "seen": ["|".join(map(str, values)) for values in seen],
            "seen_word": ["|".join(f"w{value % 7}" for value in values) for values in seen],
        }
    )
