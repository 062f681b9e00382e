from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from input_rows import data_config

from easyrec_lite.inputs import (
    BadRows,
    ColumnSpec,
    InputError,
    RawBatch,
    Source,
    as_dataset,
    input_errors,
    open_source,
)
from easyrec_lite.inputs.batch import to_batch
from easyrec_lite.inputs.windowed import WindowedSource
from easyrec_lite.protos import data_pb2


def frame_source(frame: pd.DataFrame, **options: object) -> WindowedSource:
    return open_source(data_pb2.DatasetConfig(), frame, shuffle=False, **options)  # type: ignore[arg-type]


FRAME = pd.DataFrame(
    {
        "i": [1, 2, 3],
        "f": [0.5, None, 2.5],
        "s": ["a", "", "ünï"],
        "li": [[1, 2], [], [3]],
        "lf": [[0.5], [1.5, 2.5], None],
        "ls": [["x"], [], ["", "y"]],
    }
)


def test_elements_have_the_columns_shapes_and_types() -> None:
    dataset = as_dataset(frame_source(FRAME, batch_size=2), details=True)
    columns, position, details_spec = dataset.element_spec
    assert columns == {
        "i": tf.TensorSpec([None], tf.int64),
        "f": tf.TensorSpec([None], tf.float32),
        "s": tf.TensorSpec([None], tf.string),
        "li": tf.RaggedTensorSpec([None, None], tf.int64),
        "lf": tf.RaggedTensorSpec([None, None], tf.float32),
        "ls": tf.RaggedTensorSpec([None, None], tf.string),
    }
    assert position == tf.TensorSpec([], tf.string)
    assert set(details_spec.missing) == set(columns)
    assert details_spec.event_time == tf.TensorSpec([], tf.float64)


def test_elements_hold_the_rows() -> None:
    (first, position, extra), (second, _, _) = as_dataset(frame_source(FRAME, batch_size=2), details=True)
    assert {name: column.numpy().tolist() for name, column in first.items() if name in "ifs"} == {
        "i": [1, 2],
        "f": [0.5, 0.0],
        "s": [b"a", b""],
    }
    assert first["li"].to_list() == [[1, 2], []]
    assert first["lf"].to_list() == [[0.5], [1.5, 2.5]]
    assert first["ls"].to_list() == [[b"x"], []]
    assert second["s"].numpy().tolist() == ["ünï".encode()]
    assert second["lf"].to_list() == [[]]
    assert second["ls"].to_list() == [[b"", b"y"]]
    assert {name: int(count) for name, count in extra.missing.items() if count} == {"f": 1}
    assert np.isnan(extra.event_time)
    ((resumed, _),) = as_dataset(frame_source(FRAME, batch_size=2), position.numpy().decode())
    assert resumed["i"].numpy().tolist() == [3]


@settings(max_examples=10, deadline=None)
@given(st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=3), min_size=1, max_size=6))
def test_any_text_arrives_as_it_is(lists: list[list[str]]) -> None:
    words = ["".join(words) for words in lists]
    source = (
        open_source(
            data_pb2.DatasetConfig(shuffle=False),
            pd.DataFrame({"w": words, "l": pd.Series([["x"], *lists][1:], dtype=object)}),
        )
        if any(lists)
        else frame_source(pd.DataFrame({"w": words}))
    )
    ((columns, _),) = as_dataset(source)
    assert columns["w"].numpy().tolist() == [word.encode() for word in words]
    if "l" in columns:
        assert columns["l"].to_list() == [[word.encode() for word in words] for words in lists]


def test_text_that_holds_every_byte_that_utf8_allows() -> None:
    words = ["".join(map(chr, range(128))), "\x1f", "", "\x00\x01"]
    ((columns, _),) = as_dataset(frame_source(pd.DataFrame({"w": words})))
    assert columns["w"].numpy().tolist() == [word.encode() for word in words]


def test_a_failure_comes_after_the_good_batches_and_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1,1,a\n" * 8 + "x,1,a\n")
    config = data_config(input_type="CSVInput", shuffle_window=1, shuffle_buffer_size=1)
    source = open_source(config, tmp_path / "a.csv", batch_size=4, shuffle=False, bad_rows=BadRows(max_share=0.01))
    seen: list[int] = []

    def consume() -> None:
        with input_errors(source):
            for columns, _ in as_dataset(source):
                seen.append(len(columns["id"]))

    with pytest.raises(InputError, match="1 unusable rows among 9") as caught:
        consume()
    assert seen == [4, 4]
    assert caught.value.__cause__ is None


def test_other_tensorflow_errors_pass() -> None:
    source = frame_source(FRAME)
    with pytest.raises(tf.errors.OpError), input_errors(source):
        tf.io.read_file("/no/such/file")


def test_a_start_that_does_not_fit_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="the position to start from"):
        as_dataset(frame_source(FRAME), "{}")


def test_numbers_are_exact() -> None:
    ids = np.array([2**63 - 1, -(2**63), 0])
    ((columns, _),) = as_dataset(frame_source(pd.DataFrame({"i": ids, "f": [1e-37, 3.4e38, -0.0]})))
    assert columns["i"].numpy().tolist() == ids.tolist()
    np.testing.assert_array_equal(columns["f"].numpy(), np.float32([1e-37, 3.4e38, -0.0]))


def test_a_batch_without_rows_keeps_every_column() -> None:
    class Silent(Source):
        specs = frame_source(FRAME).columns

        @property
        def columns(self) -> Mapping[str, ColumnSpec]:
            return self.specs

        def read(self, start: object = None) -> Iterator[RawBatch]:
            types = [pa.int64(), pa.float32(), pa.string()]
            schema = pa.schema(
                [*zip("ifs", types, strict=True), *zip(["li", "lf", "ls"], map(pa.list_, types), strict=True)]
            )
            rows = pa.RecordBatch.from_pylist([], schema)
            position = next(frame_source(FRAME).read()).position
            return iter([to_batch(rows, self.specs, position, event_time=2.5)] * 2)

    for columns, _, extra in as_dataset(Silent(), details=True):
        assert {name: tuple(column.shape) for name, column in columns.items() if name in "ifs"} == dict.fromkeys(
            "ifs", (0,)
        )
        assert [columns[name].to_list() for name in ("li", "lf", "ls")] == [[], [], []]
        assert float(extra.event_time) == 2.5
