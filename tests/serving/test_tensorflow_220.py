"""TensorFlow Serving's newest release is 2.20: exports load there and predict the same.

Needs a Python that has TensorFlow 2.20, named by EASYREC_LITE_TF220:

    python3.11 -m venv tf220 && tf220/bin/pip install tensorflow-cpu==2.20.0
    EASYREC_LITE_TF220=tf220/bin/python pytest tests/serving/test_tensorflow_220.py
"""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exports import SIDES, TEXTS, Exported, columns_of, make, request_rows, served

from easyrec_lite.serving import LoadedModel

PYTHON = os.environ.get("EASYREC_LITE_TF220", "")

# Runs there: this project is not installed in that environment.
SCRIPT = """
import pickle, sys
import tensorflow as tf
assert tf.__version__.startswith("2.20."), tf.__version__
path, given = pickle.load(sys.stdin.buffer)
found = {}
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    signatures = tf.compat.v1.saved_model.load(session, ["serve"], path).signature_def
    for name, inputs in given.items():
        outputs = {key: info.name for key, info in signatures[name].outputs.items()}
        found[name] = session.run(outputs, {signatures[name].inputs[key].name: x for key, x in inputs.items()})
pickle.dump(found, sys.stdout.buffer)
"""


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="EASYREC_LITE_TF220 names no Python with TensorFlow 2.20")
@pytest.mark.parametrize("model", TEXTS)
def test_loads_in_tensorflow_220(tmp_path: Path, model: str) -> None:
    kinds = {"dbmtl": "INT8", "deepfm": "BFLOAT16"}
    edits = ("export_config.user_cache.slots=8", f"export_config.table_type={kinds.get(model, 'FLOAT32')}")
    export = make(tmp_path, model, *SIDES, *edits)
    with LoadedModel(export.path) as ask:
        given = {name: _inputs(export, name, ask) for name in ask.signatures}
        expected = {name: ask(name, inputs) for name, inputs in given.items()}
    done = subprocess.run(
        [PYTHON, "-c", SCRIPT], input=pickle.dumps((str(export.path), given)), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    for name, outputs in pickle.loads(done.stdout).items():  # noqa: S301 - of the process above
        for output, values in outputs.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(values, expected[name][output], rtol=1e-5, atol=1e-5, err_msg=name)


def _inputs(export: Exported, signature: str, ask: Callable[..., dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    columns = served(columns_of(export.recommender, request_rows(40)))
    inputs = {name: column.numpy() for name, column in columns.items()}
    if signature not in ("serving_tiled", "user_embedding", "item_embedding"):
        own = export.recommender.user_columns
        inputs = {name: values[[3]] if name in own else values for name, values in inputs.items()}
    if signature == "score":
        inputs |= ask("user", inputs)
    return {name: inputs[name] for name in ask.signatures[signature].inputs}  # type: ignore[attr-defined]
