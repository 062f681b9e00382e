"""Commands as people call them, run in this process."""

from __future__ import annotations

import contextlib
import importlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from easyrec_lite.config import load_config

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples" / "configs"

# Sizes at which a sample config trains in seconds.
_SMALL = (
    "data_config.batch_size=128",
    "data_config.shuffle_window=500",
    "train_config.num_steps=12",
    "train_config.save_checkpoints_steps=6",
    "train_config.log_step_count_steps=3",
)


@dataclass(frozen=True)
class Run:
    """What a command did: its exit code and what it wrote."""

    code: int
    out: str
    err: str


def command(name: str, *arguments: object) -> Run:
    """Runs `python -m easyrec_lite.<name>` with these arguments."""
    main = importlib.import_module(f"easyrec_lite.{name}").main
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse's way
            code = end.code if isinstance(end.code, int) else 1
    return Run(code, out.getvalue(), err.getvalue())


def small(config: Path, data: Path, model_dir: Path, *edits: str) -> list[str]:
    """Flags that train a sample config on the small data set."""
    paths = (f"train_input_path={data}/train/*.parquet", f"eval_input_path={data}/eval/*.parquet")
    tables = [
        f"features[{feature.feature_name or feature.input_names[0]}].hash_bucket_size=500"
        for feature in load_config(config).message.features
        if feature.hash_bucket_size > 500
    ]
    flags = [flag for edit in (*paths, *_SMALL, *tables, *edits) for flag in ("--edit", edit)]
    return ["--config", str(config), *flags, "--model_dir", str(model_dir)]


def refused(run: Run) -> str:
    """The message of a command that refused what it was given, as a person reads it."""
    assert run.code == 2, run
    assert "Traceback" not in run.err
    assert "fault of easyrec_lite" not in run.err
    assert run.err.strip()
    return run.err


# As EasyRec's users have them: the old list of features, activations by TensorFlow's names, text without a header.
EASYREC = """\
train_input_path: "train.txt"
eval_input_path: "eval.txt"
model_dir: "model"

train_config {
  log_step_count_steps: 2
  optimizer_config: {
    adam_optimizer: {
      learning_rate: {
        exponential_decay_learning_rate {
          initial_learning_rate: 0.01
          decay_steps: 100
          decay_factor: 0.5
          min_learning_rate: 0.0001
        }
      }
    }
    use_moving_average: false
  }
  save_checkpoints_steps: 3
  num_steps: 6
  sync_replicas: false
}

eval_config {
  metrics_set: { auc {} }
}

data_config {
  separator: ";"
  input_fields: { input_name: "clk" input_type: INT32 }
  input_fields: { input_name: "price" input_type: DOUBLE default_val: "1.5" }
  input_fields: { input_name: "tags" }
  input_fields: { input_name: "age" input_type: INT32 }
  input_fields: { input_name: "user_id" input_type: STRING }
  input_fields: { input_name: "item_id" input_type: INT64 }
  label_fields: "clk"
  batch_size: 32
  num_epochs: 10000
  prefetch_size: 32
  input_type: CSVInput
}

feature_configs: { input_names: "user_id" feature_type: IdFeature embedding_dim: 4 hash_bucket_size: 50 }
feature_configs: { input_names: "item_id" feature_type: IdFeature embedding_dim: 4 num_buckets: 20 }
feature_configs: { input_names: "age" feature_type: IdFeature embedding_dim: 4 num_buckets: 5 }
feature_configs: { input_names: "price" feature_type: RawFeature }
feature_configs: { input_names: "tags" feature_type: TagFeature separator: "|" embedding_dim: 4 hash_bucket_size: 10 }

model_config: {
  model_class: "MultiTower"
  feature_groups: { group_name: "user" feature_names: ["user_id", "tags", "age"] wide_deep: DEEP }
  feature_groups: { group_name: "item" feature_names: ["item_id", "price"] wide_deep: DEEP }
  multi_tower {
    towers { input: "user" dnn { hidden_units: [8, 4] activation: "tf.nn.relu" } }
    towers { input: "item" dnn { hidden_units: [8, 4] activation: "tf.nn.relu" } }
    final_dnn { hidden_units: [4] }
    l2_regularization: 1e-6
  }
  embedding_regularization: 1e-4
}

export_config {
  multi_placeholder: false
}
"""


def easyrec_rows(count: int, seed: int) -> list[str]:
    """Lines for that config, cells in the order of its input_fields; a few ids are past their table, prices empty."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        user, item, age = rng.integers(0, 30), rng.integers(0, 21), rng.integers(0, 5)
        price = f"{rng.uniform(0, 9):.2f}" if rng.random() < 0.8 else ""
        tags = "|".join(map(str, rng.integers(0, 9, rng.integers(0, 4))))
        click = int(rng.random() < 1 / (1 + np.exp(-2 * np.sin(user) - 2 * np.cos(item))))
        lines.append(f"{click};{price};{tags};{age};u{user};{item}")
    return lines


@dataclass(frozen=True)
class Workspace:
    """A folder with that config and its rows, and the commands with it."""

    path: Path

    @property
    def model_dir(self) -> Path:
        """Where training puts things, unless it is told another place."""
        return self.path / "model"

    def run(self, name: str, *arguments: object) -> Run:
        """A command with the config; paths in it are below the folder."""
        paths = [("train_input_path", "train.txt"), ("eval_input_path", "eval.txt"), ("model_dir", "model")]
        edits = [flag for field, file in paths for flag in ("--edit", f"{field}={self.path / file}")]
        return command(name, "--config", self.path / "easyrec.config", *edits, *arguments)


def workspace(path: Path, text: str = EASYREC) -> Workspace:
    """Writes config and rows to a folder."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "easyrec.config").write_text(text)
    (path / "train.txt").write_text("\n".join(easyrec_rows(200, seed=1)) + "\n")
    (path / "eval.txt").write_text("\n".join(easyrec_rows(100, seed=2)) + "\n")
    return Workspace(path)
