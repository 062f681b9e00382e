"""What is saved comes back bit by bit."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from easyrec_lite.checkpoints import (
    CheckpointError,
    NumpyTensor,
    clean_up,
    config_digest,
    discard_after,
    environment,
    environment_changes,
    find,
    latest,
    list_checkpoints,
    prune,
    save,
)

EXAMPLES = {
    "bool": np.array([True, False, True]),
    "int64": np.array([[1, -(2**62)], [3, 4]]),
    "uint8": np.arange(256, dtype=np.uint8),
    "float16": np.array([1.5, -0.0, np.inf], np.float16),
    "float32": np.array([[np.nan, 1e-45]], np.float32),
    "float64": np.array([math.pi]),
    "complex64": np.array([1 + 2j], np.complex64),
    "bfloat16": np.array([1.0, -3.5], ml_dtypes.bfloat16),
    "float8": np.array([0.5, 2.0], ml_dtypes.float8_e4m3fn),
    "bytes": np.array([b"ab", b""]),
    "text": np.array(["über", ""]),
    "big endian": np.array([1, 2], ">i4"),
    "scalar": np.array(7, np.int32),
    "0 rows": np.empty((0, 16), np.float32),
    "0 columns": np.empty((3, 0), np.float32),
    "not contiguous": np.arange(12.0).reshape(3, 4).T,
}


class Watched:
    """A tensor that remembers the ranges it was read and written in."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array
        self.shape, self.dtype = array.shape, array.dtype
        self.ranges: list[tuple[int, int]] = []

    def read(self, start: int, stop: int) -> np.ndarray:
        self.ranges.append((start, stop))
        return self.array[start:stop]

    def write(self, start: int, array: np.ndarray) -> None:
        self.ranges.append((start, start + len(array)))
        self.array[start : start + len(array)] = array


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype.newbyteorder("=")
    assert found.tobytes() == expected.astype(found.dtype).tobytes()


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_dtype_comes_back(tmp_path: Path, name: str) -> None:
    array = EXAMPLES[name]
    checkpoint = save(tmp_path, 1, [NumpyTensor(name, array)], arrays={name: array})
    assert_same_bits(checkpoint.read(name), array)
    assert_same_bits(checkpoint.arrays()[name], array)
    target = NumpyTensor(name, np.zeros(array.shape, array.dtype.newbyteorder("=")))
    checkpoint.restore([target])
    assert_same_bits(target.array, array)


@given(
    array=hnp.arrays(
        hnp.scalar_dtypes().filter(lambda dtype: dtype.kind in "biuf" and dtype.itemsize <= 8),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5),
    ),
    chunk_bytes=st.integers(1, 64),
    window=st.tuples(st.integers(0, 6), st.integers(0, 6)),
)
@settings(max_examples=60, deadline=None)
def test_chunks_equal_the_whole(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, chunk_bytes: int, window: tuple[int, int]
) -> None:
    model_dir = tmp_path_factory.mktemp("model")
    other = NumpyTensor("before", np.arange(3))  # so that the offset in the packed file is not 0
    checkpoint = save(model_dir, 1, [other, NumpyTensor("x", array)], chunk_bytes=chunk_bytes)
    assert_same_bits(checkpoint.read("x"), array)
    if array.ndim:
        assert_same_bits(checkpoint.read("x", *window), array[window[0] : max(window)][: max(0, window[1] - window[0])])
        parts = [values for _, values in checkpoint.chunks("x", chunk_bytes)]
        assert_same_bits(np.concatenate([array[:0].astype(array.dtype.newbyteorder("=")), *parts]), array)


def test_big_tables_are_streamed_and_readable_by_numpy(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((30_000, 16)).astype(np.float32)
    tables = [Watched("deep/user id:0", table), Watched("deep/user_id:0", -table)]  # names alike as file names
    checkpoint = save(tmp_path, 5, tables, chunk_bytes=640_000)
    assert tables[0].ranges == [(0, 10_000), (10_000, 20_000), (20_000, 30_000)]
    for tensor in tables:
        file = checkpoint.path / checkpoint.record(tensor.name).file
        np.testing.assert_array_equal(np.load(file, allow_pickle=False), tensor.array)
    np.testing.assert_array_equal(checkpoint.read("deep/user id:0", 9_999, 20_001), table[9_999:20_001])
    target = Watched("deep/user id:0", np.zeros_like(table))
    checkpoint.restore([target], strict=False)
    np.testing.assert_array_equal(target.array, table)


def test_packed_tensors_are_npy_records_one_after_the_other(tmp_path: Path) -> None:
    arrays = [np.arange(3), np.array(2.5), np.zeros((0, 2), np.float32)]
    checkpoint = save(tmp_path, 1, [NumpyTensor(str(i), array) for i, array in enumerate(arrays)])
    with open(checkpoint.path / "packed.npys", "rb") as file:
        for array in arrays:
            assert_same_bits(np.load(file, allow_pickle=False), array)
        assert not file.read()
    assert sorted(path.name for path in checkpoint.path.iterdir()) == ["manifest.json", "packed.npys"]


def test_state_metrics_config_and_environment_come_back(tmp_path: Path) -> None:
    state = {"position": {"epoch": 1, "offsets": [3, None]}, "best": -math.inf, "rate": 0.1, "name": "Übung"}
    checkpoint = save(
        tmp_path,
        12,
        [],
        state=state,
        metrics={"auc": np.float32(0.75)},
        config="x: 1",
        environment=environment({"intra_op": 2}),
    )
    again = find(tmp_path)
    assert again.step == 12
    assert again.state == state
    assert again.metrics == {"auc": 0.75}
    assert (again.config, again.config_digest) == ("x: 1", config_digest("x: 1"))
    assert environment_changes(again.environment, environment({"intra_op": 2})) == []
    changes = environment_changes(again.environment, environment({"intra_op": 4}))
    assert changes == ["threads: {'intra_op': 2} in the checkpoint, {'intra_op': 4} now"]
    assert json.loads((checkpoint.path / "manifest.json").read_text())["state"]["rate"] == 0.1


def test_state_that_would_come_back_different_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="keys are text; received 0"):
        save(tmp_path, 1, [], state={"offsets": {0: 17}})
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        save(tmp_path, 1, [], state={"path": object()})
    with pytest.raises(TypeError, match="cannot be stored"):
        save(tmp_path, 1, [NumpyTensor("x", np.array([object()]))])
    with pytest.raises(ValueError, match="two tensors of a checkpoint are named 'x'"):
        save(tmp_path, 1, [NumpyTensor("x", np.zeros(1)), NumpyTensor("x", np.zeros(1))])
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_tensor_that_lies_about_its_shape_is_refused(tmp_path: Path) -> None:
    tensor = Watched("x", np.zeros((4, 2), np.float32))
    tensor.shape = (2, 4)
    with pytest.raises(ValueError, match=r"x.read\(0, 2\): expected float32 \(2, 4\), received float32 \(2, 2\)"):
        save(tmp_path, 1, [tensor])


def test_saving_needs_no_main_thread(tmp_path: Path) -> None:
    thread = threading.Thread(target=save, args=(tmp_path, 3, [NumpyTensor("x", np.arange(4))]))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(find(tmp_path).read("x"), np.arange(4))


def test_listing_latest_and_find(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    assert list_checkpoints(tmp_path) == []
    for step in (20, 3, 1_000_000_000_000):
        save(tmp_path, step, [])
    (tmp_path / "checkpoints" / "notes.txt").write_text("not ours")
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [3, 20, 1_000_000_000_000]
    newest = latest(tmp_path)
    assert newest is not None
    assert find(tmp_path).path == find(tmp_path / "checkpoints").path == find(newest.path).path == newest.path


def test_equal_values_have_one_fingerprint(tmp_path: Path) -> None:
    def fingerprint(step: int, *tensors: NumpyTensor, **facts: Any) -> str:
        return save(tmp_path, step, tensors, **facts).fingerprint

    values = np.arange(4.0)
    first = fingerprint(1, NumpyTensor("x", values))
    assert fingerprint(2, NumpyTensor("x", values.copy()), state={"rows": 7}, metrics={"auc": 0.5}) == first
    others = [
        fingerprint(3, NumpyTensor("y", values)),
        fingerprint(4, NumpyTensor("x", values.reshape(2, 2))),
        fingerprint(5, NumpyTensor("x", np.nextafter(values, 9.0))),
        fingerprint(6, NumpyTensor("x", values), NumpyTensor("y", values)),
    ]
    assert len({first, *others}) == 5


def test_prune_keeps_the_newest_and_the_protected(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step, [])
    assert prune(tmp_path, 0) == []
    assert prune(tmp_path, 2, protect={1, 6, 99}) == [2, 3, 4]
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [1, 5, 6]
    assert discard_after(tmp_path, 1) == [6, 5]
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [1]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000000000001"]


def test_clean_up_removes_only_what_killed_writers_leave(tmp_path: Path) -> None:
    save(tmp_path, 1, [])
    directory = tmp_path / "checkpoints"
    for name in (".step-000000000002-0011aabb.tmp", ".step-000000000003-0011aabb.trash", ".mine"):
        (directory / name).mkdir()
        (directory / name / "packed.npys").write_bytes(b"half")
    (tmp_path / ".0011aabb.tmp.metrics.jsonl").write_text("half")
    (tmp_path / ".notes.tmp.txt").write_text("not ours")
    removed = [path.name for path in clean_up(tmp_path)]
    assert removed == [
        ".step-000000000002-0011aabb.tmp",
        ".step-000000000003-0011aabb.trash",
        ".0011aabb.tmp.metrics.jsonl",
    ]
    assert sorted(path.name for path in directory.iterdir()) == [".mine", "step-000000000001"]
    assert (tmp_path / ".notes.tmp.txt").exists()
    assert clean_up(tmp_path / "not there yet") == []


def test_a_checkpoint_is_never_written_over(tmp_path: Path) -> None:
    save(tmp_path, 1, [NumpyTensor("x", np.zeros(2))])
    with pytest.raises(CheckpointError, match="never written over"):
        save(tmp_path, 1, [NumpyTensor("x", np.ones(2))])
    np.testing.assert_array_equal(find(tmp_path).read("x"), np.zeros(2))
