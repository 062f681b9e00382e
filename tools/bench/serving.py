"""Ranking 500 items for one user: what computing the user's side once is worth.

    python -m tools.bench.serving [--models multi_tower dbmtl din_50 din_1000 encoder_1000] [--items 500] [--seconds 20]

Each model is exported with random weights and loaded by TensorFlow's C++ loader. Four ways to ask it, in turns, so that
whatever else the machine does meets all of them alike, and in another order each turn, so that what one leaves in the
caches does:

* **repeated** is `serving_tiled`: the user's columns stand in every row, as a stock export needs them;
* **one row** is `serving_default` with one row of the user's columns;
* **score** is `score` with the user's state at hand (`user` alone is timed too);
* **cached** is `serving_cached` with the user's state in the servable.

The requests' arrays are made beforehand: what is timed is `TF_SessionRun`, with the arrays copied to tensors.
**requests/s/core** is one by the median of the process's CPU seconds a request. Operations and bytes are counted from
the shapes of the same request: the bytes are those that operations write, so small ones overlap in the caches. **of
the count** is the measured speed-up, of p50, by the counted one; **by CPU** the same of requests/s/core.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from easyrec_lite import features, models
from easyrec_lite.config import load_config
from easyrec_lite.layers import SelfAttention, folded_batch_norms
from easyrec_lite.models import Recommender
from easyrec_lite.serving import LoadedModel, ServingModule
from easyrec_lite.serving.columns import ServedColumn
from easyrec_lite.serving.costs import Cost, by_type
from easyrec_lite.serving.graph_part import observed_shapes
from easyrec_lite.serving.user_cache import CacheOptions
from easyrec_lite.terminal import main_guard, table
from tools.bench import _common

_USER, _ITEM = [f"u{i}" for i in range(16)], [f"i{i}" for i in range(10)]
_IDS, _WIDTH = 100_000, 16

_HEAD = """
model_dir: "bench"
train_config { optimizer_config { adam_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.01 } } } } num_steps: 1 }
eval_config { metrics_set { auc {} } }
data_config { batch_size: 512 input_type: CSVInput label_fields: ["click", "buy"]
  input_fields { input_name: "click" input_type: INT64 } input_fields { input_name: "buy" input_type: INT64 }
"""  # noqa: E501

_MULTI_TOWER = """model_config {
  model_class: "MultiTower"
  feature_groups { group_name: "user" feature_names: [%(user)s, "seen"] }
  feature_groups { group_name: "item" feature_names: [%(item)s] }
  multi_tower {
    towers { input: "user" dnn { hidden_units: [512, 256, 128] } }
    towers { input: "item" dnn { hidden_units: [256, 128, 64] } }
    final_dnn { hidden_units: [128, 64] }
  }
}"""

_DBMTL = """model_config {
  model_class: "DBMTL"
  feature_groups { group_name: "all" feature_names: [%(user)s, "seen", %(item)s] }
  dbmtl {
    bottom_dnn { hidden_units: [512, 256] }
    task_towers { tower_name: "ctr" label_name: "click" dnn { hidden_units: [128, 64] } }
    task_towers { tower_name: "cvr" label_name: "buy" dnn { hidden_units: [128, 64] }
      relation_tower_names: "ctr" relation_dnn { hidden_units: [32] } }
  }
}"""

_DIN = """model_config {
  model_class: "MultiTowerDIN"
  feature_groups { group_name: "user" feature_names: [%(user)s] }
  feature_groups { group_name: "item" feature_names: [%(item)s] }
  seq_att_groups { group_name: "history" seq_att_map { key: "i0" hist_seq: "seen" } }
  multi_tower {
    towers { input: "user" dnn { hidden_units: [512, 256, 128] } }
    towers { input: "item" dnn { hidden_units: [256, 128, 64] } }
    din_towers { input: "history" dnn { hidden_units: [32, 16, 1] use_bn: false } }
    final_dnn { hidden_units: [128, 64] }
  }
}"""

_ENCODER = """model_config {
  model_class: "MultiTower"
  feature_groups {
    group_name: "user" feature_names: [%(user)s]
    sequence_features { group_name: "history" seq_att_map { hist_seq: "seen" } self_attention { positions: 1000 } }
  }
  feature_groups { group_name: "item" feature_names: [%(item)s] }
  multi_tower {
    towers { input: "user" dnn { hidden_units: [512, 256, 128] } }
    towers { input: "item" dnn { hidden_units: [256, 128, 64] } }
    final_dnn { hidden_units: [128, 64] }
  }
}"""

_MODELS = {
    "multi_tower": (_MULTI_TOWER, 50),
    "dbmtl": (_DBMTL, 50),
    "din_50": (_DIN, 50),
    "din_1000": (_DIN, 1000),
    "encoder_1000": (_ENCODER, 1000),
}


@dataclass
class Timing:
    """Times and CPU times of one way to ask, in seconds."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def milliseconds(self, percent: float) -> float:
        """The percentile of the times."""
        return float(np.percentile(self.seconds, percent)) * 1e3


@dataclass(frozen=True)
class Result:
    """Of one model."""

    timings: dict[str, Timing]
    costs: dict[str, Cost]
    state_bytes: int


def config_text(model: str) -> str:
    """The config of one case."""
    body, steps = _MODELS[model]
    fields = "".join(
        f'  input_fields {{ input_name: "{name}" input_type: INT64 side: {side} }}\n'
        for side, names in (("USER", _USER), ("ITEM", _ITEM))
        for name in names
    )
    ids = "".join(
        f'features {{ input_names: "{name}" num_buckets: {_IDS} embedding_dim: {_WIDTH} }}\n' for name in _USER + _ITEM
    )
    seen = (
        f'features {{ input_names: "seen" feature_type: SequenceFeature separator: "|" num_buckets: {_IDS}'
        f' embedding_dim: {_WIDTH} embedding_name: "i0" max_seq_len: {steps}'
        " sequence_combiner { attention {} } }\n"
    )
    names = {"user": ", ".join(f'"{n}"' for n in _USER), "item": ", ".join(f'"{n}"' for n in _ITEM)}
    return _HEAD + fields + '  input_fields { input_name: "seen" side: USER }\n}\n' + ids + seen + body % names


def requests(columns: Sequence[ServedColumn], items: int, steps: int, seed: int) -> dict[str, np.ndarray]:
    """One user with a full history, and items."""
    rng = np.random.default_rng(seed)
    result: dict[str, np.ndarray] = {}
    for column in columns:
        rows = 1 if column.of_user else items
        if column.name == "seen":
            text = "|".join(map(str, rng.integers(0, _IDS, steps)))
            result[column.name] = np.array([text.encode()], object)
        else:
            result[column.name] = rng.integers(0, _IDS, rows)
    return result


def measure(model: str, items: int, seconds: float, directory: Path) -> Result:
    """Exports the model and asks it in turns for `seconds`."""
    config = load_config("bench.config", checks=(features.check, models.check), text=config_text(model)).message
    recommender = Recommender(config, training=False)
    recommender.build()
    user = recommender.user_columns
    columns = [
        ServedColumn(name, tf.string if name == "seen" else tf.int64, "", side="user" if name in user else "item")
        for name in recommender.feature_columns
    ]
    with folded_batch_norms(recommender.groups, recommender.model):
        module = ServingModule(recommender, columns, None, 1, CacheOptions(slots=1024))
        module.save(directory)
    one = requests(columns, items, _MODELS[model][1], 0)
    costs = module.count({name: tf.constant(values) for name, values in one.items()})
    costs["serving_tiled"] += attention_in_loops(model, items)
    repeated = {name: np.repeat(values, items) if name in user else values for name, values in one.items()}
    with LoadedModel(directory) as session:
        state = session("user", one)
        ways = {
            "repeated": session.request("serving_tiled", repeated),
            "one row": session.request("serving_default", one),
            "user": session.request("user", one),
            "score": session.request("score", {**state, **one}),
        }
        if "serving_cached" in session.signatures:
            ways["cached"] = session.request("serving_cached", one)
        expected = ways["repeated"]()
        for name, ask in ways.items():
            for _ in range(3):
                found = ask()
            for output in set(expected) & set(found):
                np.testing.assert_allclose(found[output], expected[output], rtol=1e-5, atol=1e-5, err_msg=name)
        timings = {name: Timing() for name in ways}
        turns = random.Random(0)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for name in turns.sample(list(ways), len(ways)):
                ask = ways[name]
                cpu, start = time.process_time(), time.perf_counter()
                ask()
                timings[name].seconds.append(time.perf_counter() - start)
                timings[name].cpu.append(time.process_time() - cpu)
    return Result(timings, costs, sum(values.nbytes for values in state.values()))


def attention_in_loops(model: str, items: int) -> Cost:
    """What the count of `repeated` lacks: where there are several histories, their attention stands in a loop."""
    body, steps = _MODELS[model]
    if body is not _ENCODER:
        return Cost()
    specs = [tf.TensorSpec([None, _WIDTH]), tf.TensorSpec([2], tf.int64)]
    graph = tf.function(SelfAttention(), input_signature=specs, autograph=False).get_concrete_function().graph
    given = (tf.zeros([steps, _WIDTH]), tf.constant([0, steps], tf.int64))
    shapes = observed_shapes(graph, {x.op.name: value for x, value in zip(graph.inputs, given, strict=False)})
    costs = by_type(graph.get_operations(), shapes)
    one = sum((cost for kind, cost in costs.items() if kind.startswith(("BatchMatMul", "Softmax"))), Cost())
    return Cost(one.flops * items, one.bytes * items)


def report(model: str, result: Result) -> None:
    """Prints a table."""
    counted = {"repeated": "serving_tiled", "one row": "serving_default", "user": "user", "score": "score"}
    plain, before = result.timings["repeated"], result.costs["serving_tiled"]
    rows = []
    for way, timing in result.timings.items():
        cost = result.costs[counted.get(way, "score")]
        speed = plain.milliseconds(50) / timing.milliseconds(50)
        work = float(np.median(plain.cpu) / np.median(timing.cpu))
        allowed = before.flops / max(cost.flops, 1)
        rows.append(
            (
                way,
                f"{timing.milliseconds(50):.2f}",
                f"{timing.milliseconds(99):.2f}",
                f"{1 / float(np.median(timing.cpu)):,.0f}",
                f"{cost.flops / 1e6:,.1f}",
                f"{cost.bytes / 1e6:,.1f}",
                f"{speed:.2f}",
                f"{allowed:.2f}",
                f"{before.bytes / max(cost.bytes, 1):.2f}",
                *(["", ""] if way in ("repeated", "user") else [f"{speed / allowed:.2f}", f"{work / allowed:.2f}"]),
            )
        )
    heads = (
        "way", "p50 ms", "p99 ms", "requests/s/core", "MFLOP", "MB written", "speed-up", "by FLOP", "by bytes",
        "of the count", "by CPU",
    )  # fmt: skip
    asked = len(plain.seconds)
    table(f"{model}: state of {result.state_bytes:,} bytes, {asked:,} requests each", heads, rows)


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _common.parser("serving", __doc__)
    parser.add_argument("--models", nargs="+", choices=sorted(_MODELS), default=list(_MODELS))
    parser.add_argument("--items", type=int, default=500, metavar="N", help="of a request (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, metavar="S", help="for each model (%(default)s)")
    flags = parser.parse_args(argv)
    results = {}
    for model in flags.models:
        with tempfile.TemporaryDirectory() as directory:
            results[model] = measure(model, flags.items, flags.seconds, Path(directory) / "1")
        report(model, results[model])
    _common.keep(flags.json, "serving", results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
