"""A training that is asked to stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from easyrec_lite.checkpoints import latest

CONFIG = """
model_dir: "{model}"
train_input_path: "{rows}"
train_config {{
  optimizer_config {{ adam_optimizer {{ learning_rate {{ constant_learning_rate {{ learning_rate: 0.01 }} }} }} }}
  log_step_count_steps: 1
}}
data_config {{ input_type: CSVInput with_header: true batch_size: 2 num_epochs: 100000000 label_fields: "click" }}
features {{ input_names: "user" num_buckets: 4 embedding_dim: 2 }}
export_config {{ exporter_type: "none" }}
model_config {{
  model_class: "MultiTower"
  feature_groups {{ group_name: "all" feature_names: "user" }}
  multi_tower {{ towers {{ input: "all" dnn {{ hidden_units: [2] }} }} final_dnn {{ hidden_units: [2] }} }}
}}
"""


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_training_with_a_checkpoint(tmp_path: Path, how: signal.Signals, code: int) -> None:
    rows, model, path = tmp_path / "rows.csv", tmp_path / "model", tmp_path / "x.config"
    rows.write_text("click,user\n0,1\n1,2\n0,3\n")
    path.write_text(CONFIG.format(model=model, rows=rows))
    command = [sys.executable, "-m", "easyrec_lite.train", "--config", str(path)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(r"train: step", line):
            break
    process.send_signal(how)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert f"stopped by {how.name}" in output
    checkpoint = latest(model)
    assert checkpoint is not None
    records = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    assert checkpoint.step == records[-1]["step"]
