import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from easyrec_lite.models import Recommender
from easyrec_lite.training import Stepper
from tools.bench import _common, _profile, table_size, training
from tools.bench._cases import MODELS, Case, config_of, histories, write_rows
from tools.bench._common import Spread
from tools.bench._loops import DenseFloor, Loop, group_tensors, ready, stage_loops
from tools.bench.training import Options, Result, Stage

TINY = Case(features=4, dim=4, units=(8, 4), table_rows=50, batch=16, rows=64, longest=5)


def columns_of(path, start, stop):
    """Rows of a file as the tensors that the input gives."""
    rows = pq.read_table(path).slice(start, stop - start)
    return {
        name: tf.ragged.constant(column.to_pylist(), dtype=tf.int64, row_splits_dtype=tf.int64)
        if name in histories(TINY)
        else tf.constant(column.to_numpy(), tf.float32 if name in ("clk", "buy") else tf.int64)
        for name, column in zip(rows.column_names, rows.columns, strict=True)
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "rows.parquet"
    write_rows(path, TINY)
    return path


def test_the_case_is_the_one_that_is_published():
    case = Case()
    assert (case.features, case.dim, case.units, case.batch) == (20, 16, (256, 128, 96, 64), 4096)
    assert (case.table_rows, case.longest) == (100_000, 50)


def test_rows_are_zipf_and_histories_have_the_mean(tmp_path):
    case = dataclasses.replace(Case(), features=4, rows=40_960)
    write_rows(tmp_path / "rows.parquet", case)
    table = pq.read_table(tmp_path / "rows.parquet")
    ids = table["f0"].to_numpy()
    assert ids.min() >= 0
    assert ids.max() < case.table_rows
    distinct = [len(np.unique(ids[start : start + 4096])) / 4096 for start in range(0, 40_960, 4096)]
    assert 0.33 < np.mean(distinct) < 0.46
    lengths = np.diff(table["h0"].combine_chunks().offsets.to_numpy())
    assert lengths.mean() == pytest.approx(19, abs=0.4)
    assert (lengths.min(), lengths.max()) == (1, 50)
    assert table["clk"].to_numpy().mean() == pytest.approx(0.3, abs=0.02)
    assert not np.any(table["buy"].to_numpy() > table["clk"].to_numpy())


def test_spread_ids_are_as_many_in_every_batch_whatever_the_table(tmp_path):
    for table_rows in (200, 100_000):
        case = dataclasses.replace(TINY, table_rows=table_rows, shared=True, distinct=150, batch=64, rows=192)
        write_rows(tmp_path / "rows.parquet", case)
        table = pq.read_table(tmp_path / "rows.parquet", columns=["f0", "f1", "f2", "f3"])
        for start in range(0, 192, 64):
            ids = np.concatenate([column.to_numpy() for column in table.slice(start, 64).columns])
            assert len(np.unique(ids)) == 150
            assert ids.max() > 0.9 * table_rows


@pytest.mark.parametrize("case", [{"features": 2}, {"distinct": 10}, {"distinct": 60, "shared": True}])
def test_a_case_that_cannot_be_is_refused(case):
    with pytest.raises(ValueError, match="Received"):
        dataclasses.replace(TINY, **case)


@pytest.mark.parametrize("model", MODELS)
def test_a_floor_step_does_what_a_real_step_does_to_the_dense_part(rows, tmp_path, model):
    config = config_of(model, TINY, rows, tmp_path / "model").message
    recommender = Recommender(config)
    stepper = Stepper(recommender)
    batch = recommender.encode(columns_of(rows, 0, 16))
    floor = DenseFloor(config, [group_tensors(recommender, batch)])

    real = tf.function(lambda: stepper.train(batch)["loss"], autograph=False)()
    floor(1)

    variables = zip(recommender.trainable_variables, floor.recommender.trainable_variables, strict=True)
    for one, other in variables:
        assert one.path.split("/")[1:] == other.path.split("/")[1:]
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-5)
    assert np.isfinite(real)


def test_stages_run_and_cost_something(rows, tmp_path):
    stepper = Stepper(Recommender(config_of("DIN", TINY, rows, tmp_path / "model").message))
    raw = [columns_of(rows, 0, 16), columns_of(rows, 16, 32)]
    costs = {name: loop.cost(count=2, repeats=2) for name, loop in stage_loops(stepper, raw)}
    assert len(costs) == 9
    assert all(cost.wall.median > 0 for cost in costs.values())
    assert int(stepper.step) == 2 + 2 * 2  # "the whole step" counts its steps


def test_a_loop_computes_what_nobody_reads():
    calls = tf.Variable(0)

    def function(element):
        calls.assign_add(element)
        return {"value": element * 2, "text": tf.constant(["a"])}

    loop = Loop(function, ready([tf.constant(1), tf.constant(10)]))
    loop(3)
    assert int(calls) == 1 + 10 + 1


def test_the_floor_wants_group_tensors_that_need_no_layer(rows, tmp_path):
    config = config_of("MultiTower", TINY, rows, tmp_path / "model").message
    kind = config.features[0].RawFeature  # embedding_dim makes it a trained projection
    config.features.add(input_names=["x"], feature_name="x", feature_type=kind, embedding_dim=4)
    config.model_config.feature_groups[0].feature_names.append("x")
    with pytest.raises(ValueError, match="dense floor"):
        DenseFloor(config, [])


def test_own_times_of_nested_ops():
    plane = xplane_pb2.XPlane()
    product, call = "while/body/_1/while/MatMul_1:_MklMatMul", "cond/then/_3/PyFunc:PyFunc"
    names = [product, call, "a/Mul:Mul", "EagerExecute", "b/Mul:Mul"]
    for place, name in enumerate(names):
        plane.event_metadata[place].name = name
    line = plane.lines.add()
    for place, start, duration in [(3, 0, 100), (0, 0, 40), (1, 40, 50), (2, 45, 20), (4, 95, 5), (0, 200, 60)]:
        line.events.add(metadata_id=place, offset_ps=start * 10**9, duration_ps=duration * 10**9)
    ops = _profile.read([xplane_pb2.XSpace(planes=[plane])])

    def rounded(ops):
        return [(op.kind, op.name, round(op.seconds * 1e3), op.calls) for op in ops]

    first = [("_MklMatMul", "MatMul_1", 100, 2), ("PyFunc", "PyFunc", 30, 1)]
    assert rounded(ops) == [*first, ("Mul", "a/Mul", 20, 1), ("Mul", "b/Mul", 5, 1)]
    assert rounded(_profile.by_kind(ops)) == [*first, ("Mul", "a/Mul", 25, 2)]


def test_the_profiler_sees_the_ops():
    function = tf.function(lambda x: x @ x)
    function(tf.ones([64, 64]))
    profiler = _profile.Profiler()
    with pytest.raises(RuntimeError, match="start"):
        profiler.stop()
    profiler.start()
    function(tf.ones([64, 64]))
    assert any("MatMul" in op.kind and op.seconds > 0 for op in profiler.stop())


def result(**changes):
    one = Spread.of([1.0])
    fields = {
        "model": "DIN",
        "step": one,
        "floor": one,
        "ratio": one,
        "cpu": Spread.of([0.2]),
        "floor_cpu": one,
        "cpu_ratio": one,
        "batch": 4096,
        "distinct_share": 0.4,
        "peak_bytes": 3 << 20,
        "build_seconds": 1.0,
        "first_steps_seconds": 2.0,
    }
    return Result(**{**fields, **changes})


def test_cpu_microseconds_a_row():
    assert result().cpu_us_per_row.median == pytest.approx(0.2e6 / 4096)
    assert training._ratios([2.0, 9.0], [1.0, 3.0]) == Spread.of([2.0, 3.0])


def test_tables_show_all(capsys):
    ops = [_profile.OpTime("MatMul", "a/MatMul", 0.03, 2.0), _profile.OpTime("Mul", "a/Mul", 0.01, 1.0)]
    training.show([result(stages=[Stage("read", Spread.of([0.004]), Spread.of([0.002]))], ops=ops)])
    shown = capsys.readouterr().out
    for text in ("DIN", "48.8 (48.8 .. 48.8)", "read", "4.00", "40.0 ms a step", "75.0%"):
        assert text in shown
    slower = result(ratio=Spread.of([1.5]))
    cases = [table_size.case_of(rows) for rows in (10_000, 10_000_000)]
    table_size.show(cases, [result(), slower])
    shown = capsys.readouterr().out
    assert "10,000,000" in shown
    assert "1.50" in shown
    assert "1,831" in shown  # MiB of 1e7 rows of 16 floats, three times


def test_pairs_measure_every_second_call(monkeypatch):
    clock = iter([0.0, 5.0, 6.0, 8.0, 8.0, 16.0, 20.0, 23.0, 23.0, 25.0, 25.0, 41.0, 44.0, 48.0])
    cpu = iter(float(i) for i in range(100))
    clocks = SimpleNamespace(perf_counter=lambda: next(clock), process_time=lambda: next(cpu))
    monkeypatch.setattr(training, "time", clocks)
    monkeypatch.setattr(_common, "wait_until_idle", lambda: True)
    floors = []
    pairs = training._Pairs(Options(pairs=2, steps=4), None)
    pairs._floor, pairs._since = floors.append, (next(clock), next(cpu))
    four = SimpleNamespace(steps=4)
    for _ in range(4):
        pairs.on_steps(None, four)
    with pytest.raises(_common.Enough):
        pairs.on_steps(None, four)
    assert pairs.first_steps_seconds == 5.0
    assert pairs.steps == [(16.0 - 8.0) / 4, (41.0 - 25.0) / 4]
    assert pairs.floors == [(23.0 - 20.0) / 4, (48.0 - 44.0) / 4]
    assert floors == [2, 4, 2, 4]


@pytest.mark.slow
def test_the_whole_line_with_stages_and_profile(tmp_path):
    case = dataclasses.replace(TINY, rows=160, shared=True, distinct=20)
    write_rows(tmp_path / "rows.parquet", case)
    options = Options(pairs=2, steps=4, stages=True, profile=True, edits=("data_config.shuffle=false",))
    found = _common.in_own_process(training.measure, "DIN", case, tmp_path / "rows.parquet", options)
    assert found.ratio.count == 2
    assert found.step.median > 0
    assert found.batch == 16
    assert 0 < found.distinct_share < 1
    assert len(found.stages) == 11
    assert any("MatMul" in op.kind for op in found.ops)
    assert math.isclose(found.cpu_us_per_row.median, found.cpu.median / 16 * 1e6)


@pytest.mark.slow
def test_the_commands(tmp_path, capsys):
    flags = ["--pairs", "1", "--steps", "1", "--json", str(tmp_path / "out.json")]
    assert training.main(["--models", "MultiTower", "--rows", "4096", "--no_statistics", *flags]) == 0
    assert "MultiTower" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["results"]["models"][0]["cpu_us_per_row"]["median"] > 0
    assert training.main(["--models", "DIN", "--edit", "no.such=1"]) == 2
    assert table_size.main(["--table_rows", "10000", *flags]) == 0
    record = json.loads((tmp_path / "out.json").read_text())["results"][0]
    assert record["case"]["table_rows"] == 10_000
    assert record["result"]["distinct_share"] == pytest.approx(8000 / 81_920)
