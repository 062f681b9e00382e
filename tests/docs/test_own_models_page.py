"""The example of docs/own_models.md does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from easyrec_lite import models
from easyrec_lite.config import ConfigError, load_config
from easyrec_lite.models import Recommender

PAGE = (Path(__file__).parents[2] / "docs" / "own_models.md").read_text()
CODE, SIDED = re.findall(r"```python\n(.*?)```", PAGE, re.S)
MODEL = re.search(r"```protobuf\n(.*?)```", PAGE, re.S)[1]
CONFIG = """
model_dir: "runs/own"
data_config { input_type: ParquetInput label_fields: "clk" }
features { input_names: "user_id" feature_type: IdFeature num_buckets: 10 embedding_dim: 4 }
features { input_names: "item_id" feature_type: IdFeature num_buckets: 10 embedding_dim: 4 }
features { input_names: "price" feature_type: RawFeature }
train_config {
  num_steps: 1
  optimizer_config { adam_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.1 } } } }
}
"""


@pytest.fixture(scope="module", autouse=True)
def _registered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "page_models.py").write_text(CODE + SIDED)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        __import__("page_models")
        yield


def test_the_model_of_the_page_predicts_as_its_layers_say():
    config = load_config(text=CONFIG + MODEL, checks=(models.check,)).message
    recommender = Recommender(config, training=False)
    recommender.build()
    columns = {"user_id": tf.constant([1, 2], tf.int64), "item_id": tf.constant([3, 4], tf.int64)}
    columns["price"] = tf.constant([0.5, 2.0])
    batch = recommender.encode(columns, targets=False)
    probs = recommender.predict(batch)["probs"].numpy()

    tables = {view.name: view.read(0, 10) for view in recommender.collection.views()}
    x = np.concatenate(
        [
            tables["embeddings/user_id/weights"][[1, 2]],
            tables["embeddings/item_id/weights"][[3, 4]],
            np.array([[0.5], [2.0]]),
        ],
        axis=1,
    )
    dense = {variable.path: variable.numpy() for variable in recommender.dense_variables}
    for layer in ("dense", "dense_1"):
        x = np.maximum(x @ dense[f"model/{layer}/kernel"] + dense[f"model/{layer}/bias"], 0)
    logits = x @ dense["model/last/kernel"] + dense["model/last/bias"]
    np.testing.assert_allclose(probs, 1 / (1 + np.exp(-logits[:, 0])), rtol=1e-5)


def test_a_second_model_of_the_config_has_the_same_names():
    config = load_config(text=CONFIG + MODEL).message
    names = []
    for _ in range(2):
        recommender = Recommender(config, training=False)
        recommender.build()
        names.append([variable.path for variable in recommender.dense_variables])
    assert names[0] == names[1]


def test_its_check_is_shown_with_the_others():
    without = MODEL.replace("params { units: [64, 32] }", "")
    with pytest.raises(ConfigError, match=r"model_config.model_params.params: found no units"):
        load_config(text=CONFIG + without, checks=(models.check,))


def test_the_one_that_takes_sides_computes_the_user_once():
    declared = 'input_fields { input_name: "user_id" input_type: INT64 side: USER } '
    declared += 'input_fields { input_name: "item_id" input_type: INT64 } '
    declared += 'input_fields { input_name: "price" input_type: FLOAT } input_fields { input_name: "clk" }'
    text = CONFIG.replace('label_fields: "clk"', f'label_fields: "clk" {declared}') + MODEL
    config = load_config(text=text.replace('"Scorer"', '"SidedScorer"'), checks=(models.check,)).message
    recommender = Recommender(config, training=False)
    recommender.build()
    items = {"item_id": tf.constant([3, 4, 5], tf.int64), "price": tf.constant([0.5, 2.0, 1.0])}
    request = {"user_id": tf.constant([1], tf.int64), **items}
    rows = {"user_id": tf.constant([1, 1, 1], tf.int64), **items}
    found = recommender.predict_request(recommender.collection.variables_by_bucket, request)["probs"]
    wanted = recommender.predict(recommender.encode(rows, targets=False))["probs"]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)

    widths = []
    kernel = recommender.model.hidden
    call_sided = type(kernel).call_sided

    def watch(layer, x, **options):
        widths.append([(side.name, part.shape[0]) for side, part in x.parts])
        return call_sided(layer, x, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(kernel), "call_sided", watch)
        recommender.predict_request(recommender.collection.variables_by_bucket, request)
    assert ("USER", 1) in widths[0]
    assert ("ITEM", 3) in widths[0]
