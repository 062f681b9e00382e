"""Small configs, one a model, and rows for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from easyrec_lite import features, models
from easyrec_lite.config import PipelineConfig, load_config
from easyrec_lite.models import Batch, Recommender

HEAD = """
model_dir: "model"
train_config {
  optimizer_config { adam_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.01 } } } }
  num_steps: 10
  save_checkpoints_steps: 4
  log_step_count_steps: 2
}
eval_config { metrics_set { auc {} } }
data_config {
  batch_size: 16
  input_type: CSVInput
  with_header: true
  input_fields { input_name: "click" input_type: INT64 }
  input_fields { input_name: "buy" input_type: INT64 }
  input_fields { input_name: "weight" input_type: FLOAT }
  input_fields { input_name: "user" input_type: INT64 side: USER private: true }
  input_fields { input_name: "gender" side: USER }
  input_fields { input_name: "age" input_type: FLOAT side: USER }
  input_fields { input_name: "item" input_type: INT64 side: ITEM }
  input_fields { input_name: "price" input_type: FLOAT default_val: "3.5" }
  input_fields { input_name: "tags" }
  input_fields { input_name: "seen" }
  input_fields { input_name: "words" }
  %(data)s
}
features { input_names: "user" num_buckets: 12 embedding_dim: 4 }
features { input_names: "gender" hash_bucket_size: 5 embedding_dim: 4 }
features { input_names: "age" feature_type: RawFeature }
features { feature_name: "age_row" input_names: "age" feature_type: RawFeature embedding_dim: 4 }
features { input_names: "item" num_buckets: 20 embedding_dim: 4 embedding_name: "item" }
features { input_names: "price" feature_type: RawFeature boundaries: [1, 3, 5] embedding_dim: 4 }
features { input_names: "tags" feature_type: TagFeature num_buckets: 7 embedding_dim: 4 combiner: "mean" }
features { input_names: "seen" feature_type: SequenceFeature num_buckets: 20 embedding_dim: 4 embedding_name: "item"
  sequence_combiner { attention {} } }
features { input_names: "words" feature_type: SequenceFeature hash_bucket_size: 9 embedding_dim: 3
  sequence_combiner { text_cnn { filter_sizes: [1, 2] num_filters: [2, 3] pad_sequence_length: 4
    mlp { hidden_units: [4] use_bn: false } } } }
"""

MULTI_TOWER = """
model_config {
  model_class: "MultiTower"
  feature_groups { group_name: "user" feature_names: ["user", "gender", "age", "tags"] }
  feature_groups { group_name: "item" feature_names: ["item", "price", "age_row"] }
  multi_tower {
    towers { input: "user" dnn { hidden_units: [5, 3] } }
    towers { input: "item" dnn { hidden_units: [4] use_bn: false activation: "tanh" } }
    final_dnn { hidden_units: [3] }
    l2_regularization: 0.01
  }
  embedding_regularization: 0.02
}
"""

# A history that is encoded without a look at the item.
SELF_ATTENTION = """
model_config {
  model_class: "MultiTower"
  feature_groups {
    group_name: "user" feature_names: ["user", "age"]
    sequence_features {
      group_name: "past" seq_att_map { hist_seq: "seen" } self_attention { heads: 2 layers: 2 positions: 3 }
    }
  }
  feature_groups { group_name: "item" feature_names: ["item", "price"] }
  multi_tower {
    towers { input: "user" dnn { hidden_units: [5, 3] use_bn: false activation: "tanh" } }
    towers { input: "item" dnn { hidden_units: [4] use_bn: false } }
    final_dnn { hidden_units: [3] }
    l2_regularization: 0.01
  }
}
"""

DIN = """
model_config {
  model_class: "MultiTowerDIN"
  feature_groups { group_name: "user" feature_names: ["user", "age"] }
  seq_att_groups { group_name: "history" seq_att_map { key: "item" hist_seq: "seen" } }
  multi_tower {
    towers { input: "user" dnn { hidden_units: [4] } }
    din_towers { input: "history" dnn { hidden_units: [3, 1] use_bn: false } }
    final_dnn { hidden_units: [4, 2] }
    l2_regularization: 0.01
  }
}
"""

DSSM = """
model_config {
  model_class: "DSSM"
  feature_groups { group_name: "user" feature_names: ["user", "gender", "seen"] }
  feature_groups { group_name: "item" feature_names: ["item", "price"] }
  dssm {
    user_tower { dnn { hidden_units: [5, 3] } }
    item_tower { dnn { hidden_units: [4, 3] } }
    %(dssm)s
    l2_regularization: 0.01
  }
  loss_type: %(loss)s
}
"""

DSSM_LISTWISE = DSSM % {
    "dssm": 'simi_func: COSINE scale_simi: false temperature: 0.2 item_id: "item"',
    "loss": "SOFTMAX_CROSS_ENTROPY",
}
DSSM_POINTWISE = DSSM % {"dssm": "simi_func: INNER_PRODUCT scale_simi: true", "loss": "CLASSIFICATION"}

DBMTL = """
model_config {
  model_class: "DBMTL"
  feature_groups { group_name: "all" feature_names: ["user", "item", "age", "words"] }
  dbmtl {
    %(shared)s
    task_towers {
      tower_name: "buy" label_name: "buy" dnn { hidden_units: [3] } weight: 2
      relation_tower_names: "click" relation_dnn { hidden_units: [3] use_bn: false }
      %(buy)s
    }
    task_towers { tower_name: "click" label_name: "click" dnn { hidden_units: [4, 2] } %(click)s }
    l2_regularization: 0.01
  }
}
"""

DEEPFM = """
model_config {
  model_class: "DeepFM"
  feature_groups { group_name: "wide" feature_names: ["user", "item", "tags", "age_row"] wide_deep: WIDE }
  feature_groups { group_name: "deep" feature_names: ["user", "item", "tags", "price"] }
  %(groups)s
  deepfm { dnn { hidden_units: [5, 3] } l2_regularization: 0.01 %(deepfm)s }
  embedding_regularization: 0.03
}
"""

MODELS = {
    "multi_tower": HEAD % {"data": 'label_fields: "click"'} + MULTI_TOWER,
    "din": HEAD % {"data": 'label_fields: "click"'} + DIN,
    "self_attention": HEAD % {"data": 'label_fields: "click"'} + SELF_ATTENTION,
    "dssm": HEAD % {"data": 'label_fields: "click"'} + DSSM_LISTWISE,
    "dssm_pointwise": HEAD % {"data": 'label_fields: "click" sample_weight: "weight"'} + DSSM_POINTWISE,
    "dbmtl": HEAD % {"data": 'label_fields: ["click", "buy"]'}
    + DBMTL % {"shared": "bottom_dnn { hidden_units: [6] }", "buy": "", "click": ""},
    "dbmtl_experts": HEAD % {"data": 'label_fields: ["click", "buy"] sample_weight: "weight"'}
    + DBMTL
    % {
        "shared": "expert_dnn { hidden_units: [5] } num_expert: 3",
        "buy": 'task_space_indicator_label: "click" in_task_space_weight: 2 out_task_space_weight: 0.5',
        "click": "use_sample_weight: false",
    },
    "deepfm": HEAD % {"data": 'label_fields: "click" sample_weight: "weight"'} + DEEPFM % {"groups": "", "deepfm": ""},
    "deepfm_final": HEAD % {"data": 'label_fields: "click"'}
    + DEEPFM
    % {
        "groups": 'feature_groups { group_name: "fm" feature_names: ["user", "tags"] }',
        "deepfm": "final_dnn { hidden_units: [4] } wide_output_dim: 3 dense_regularization: 0.02",
    },
}


def load(text: str, *edits: str) -> PipelineConfig:
    """A config as the commands load it."""
    return load_config("tiny.config", edits, checks=(features.check, models.check), text=text)


def rows(count: int, seed: int = 0) -> pd.DataFrame:
    """Rows with every kind of cell: known ids, ids out of range, empty cells, lists of no to five values."""
    rng = np.random.default_rng(seed)

    def lists(low: int, high: int, length: int) -> list[str]:
        return ["|".join(map(str, rng.integers(low, high, rng.integers(0, length)))) for _ in range(count)]

    user, item = rng.integers(0, 13, count), rng.integers(0, 21, count)  # 12 and 20 are past the tables
    score = np.sin(user) + np.cos(item)
    click = (rng.random(count) < 1 / (1 + np.exp(-2 * score))).astype(np.int64)
    return pd.DataFrame(
        {
            "click": click,
            "buy": click * rng.integers(0, 2, count),
            "weight": rng.choice([0.5, 1.0, 2.0], count).astype(np.float32),
            "user": user,
            "gender": rng.choice(["f", "m", ""], count),
            "age": rng.normal(0, 1, count).astype(np.float32),
            "item": item,
            "price": rng.uniform(0, 7, count).astype(np.float32),
            "tags": lists(0, 8, 4),
            "seen": lists(0, 20, 6),
            "words": lists(0, 50, 6),
        }
    )


def columns(frame: pd.DataFrame) -> dict[str, tf.Tensor]:
    """Rows as the features read them."""
    kinds: dict[str, Any] = {"i": tf.int64, "f": tf.float32, "O": tf.string}
    return {name: tf.constant(frame[name].to_numpy(), kinds.get(frame[name].dtype.kind, tf.string)) for name in frame}


def built(text: str, *edits: str, training: bool = True) -> Recommender:
    """A recommender whose dense variables have values far from their start, so that no term hides at 0 or 1."""
    recommender = Recommender(load(text, *edits).message, training=training)
    recommender.build()
    rng = np.random.default_rng(3)
    for variable in recommender.dense_variables:
        if variable.path.endswith("moving_variance"):
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
        elif str(variable.dtype).startswith("float"):
            variable.assign(rng.normal(0, 0.7, variable.shape))
    return recommender


def encode(recommender: Recommender, frame: pd.DataFrame, targets: bool = True) -> Batch:
    """A batch of all rows."""
    return recommender.encode(columns(frame), targets)
