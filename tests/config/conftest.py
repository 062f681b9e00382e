"""Sample configs, and a small config that tests change."""

from pathlib import Path

import pytest

SAMPLES = sorted((Path(__file__).parent / "data").glob("*.config"))

BASE = """\
train_input_path: "train.csv"
eval_input_path: "eval.csv"
model_dir: "m"
train_config {
  optimizer_config { adam_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.01 } } } }
  num_steps: 10
}
eval_config { metrics_set { auc {} } }
data_config {
  input_type: CSVInput
  label_fields: "y"
  input_fields { input_name: "y" input_type: INT32 }
  input_fields { input_name: "a" }
  input_fields { input_name: "b" }
  input_fields { input_name: "s" }
  input_fields { input_name: "n" input_type: DOUBLE }
}
features { input_names: "a" embedding_dim: 8 hash_bucket_size: 100 }
features { input_names: "b" embedding_dim: 8 num_buckets: 10 feature_type: TagFeature }
features { input_names: "s" embedding_dim: 8 hash_bucket_size: 100 feature_type: SequenceFeature }
features { input_names: "n" feature_type: RawFeature }
model_config {
  model_class: "MultiTower"
  feature_groups {
    group_name: "all"
    feature_names: ["a", "b", "n"]
    sequence_features { group_name: "seq" seq_att_map { key: "a" hist_seq: "s" } }
  }
  multi_tower {
    towers { input: "all" dnn { hidden_units: [8, 4] } }
    final_dnn { hidden_units: [4] }
  }
}
"""


@pytest.fixture
def base_text():
    """A config without problems."""
    return BASE


@pytest.fixture(params=SAMPLES, ids=lambda path: path.stem)
def sample(request):
    """Each of the sample configs."""
    return request.param
