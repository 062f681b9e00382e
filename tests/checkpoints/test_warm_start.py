"""A model takes from another's checkpoint what fits, and says what did not."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from easyrec_lite.checkpoints import Checkpoint, CheckpointError, NumpyTensor, read_name_map, save, warm_start

TABLE = np.arange(1, 13, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return save(tmp_path, 1, [NumpyTensor("table", TABLE), NumpyTensor("bias", np.ones(3, np.float32))])


def model(**shapes: tuple[int, ...]) -> dict[str, NumpyTensor]:
    return {name: NumpyTensor(name, np.full(shape, -1, np.float32)) for name, shape in shapes.items()}


def test_names_and_shapes_decide(checkpoint: Checkpoint) -> None:
    tensors = model(table=(4, 3), bias=(5,), head=(2,))
    report = warm_start(checkpoint, list(tensors.values()))
    np.testing.assert_array_equal(tensors["table"].array, TABLE)
    assert (tensors["bias"].array == -1).all()
    assert report.restored == ["table"]
    assert report.mismatched == [("bias", (3,), (5,))]
    assert report.missing == ["head"]
    assert report.unused == ["bias"]
    assert str(report).splitlines() == [
        "1 tensors restored",
        "shapes differ: bias: [3] there, [5] here",
        "not in the checkpoint: head",
        "not in the model: bias",
    ]


def test_name_map(checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "map.txt"
    path.write_text("# model  checkpoint\nuser_table  table\n\ncopy\ttable # twice\n")
    tensors = model(user_table=(4, 3), copy=(4, 3), bias=(3,))
    report = warm_start(checkpoint, list(tensors.values()), read_name_map(path))
    assert report.restored == ["user_table", "copy", "bias"]
    assert report.unused == []
    np.testing.assert_array_equal(tensors["copy"].array, TABLE)


def test_faults_of_the_name_map_are_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    tensors = list(model(user_table=(4, 3)).values())
    with pytest.raises(CheckpointError) as caught:
        warm_start(checkpoint, tensors, {"user_tabel": "table", "user_table": "tables"})
    assert "user_tabel is not in the model; did you mean user_table?" in str(caught.value)
    assert "tables is not in the checkpoint; did you mean table?" in str(caught.value)
    path = tmp_path / "map.txt"
    path.write_text("a b\nc\nd e f\n")
    with pytest.raises(CheckpointError, match=r"map.txt:2: found 1 names\n.*map.txt:3: found 3 names"):
        read_name_map(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_name_map(tmp_path / "none")


@pytest.mark.parametrize("shape", [(2, 3), (6, 3), (4, 2), (4, 5), (6, 2), (2, 5), (0, 3), (6, 0)])
def test_crop_or_pad(checkpoint: Checkpoint, shape: tuple[int, int]) -> None:
    tensors = model(table=shape)
    report = warm_start(checkpoint, list(tensors.values()), crop_or_pad=True)
    expected = np.pad(TABLE, ((0, 9), (0, 9)))[: shape[0], : shape[1]]
    np.testing.assert_array_equal(tensors["table"].array, expected)
    assert report.resized == [("table", (4, 3), shape)]


def test_crop_or_pad_works_through_big_tables_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.arange(40, dtype=np.float32).reshape(10, 4)
    checkpoint = save(tmp_path, 1, [NumpyTensor("table", table)])
    chunks = checkpoint.chunks
    monkeypatch.setattr(checkpoint, "chunks", lambda name: chunks(name, chunk_bytes=48))
    for rows in (7, 13):
        tensors = model(table=(rows, 5))
        warm_start(checkpoint, list(tensors.values()), crop_or_pad=True)
        np.testing.assert_array_equal(tensors["table"].array, np.pad(table, ((0, 3), (0, 1)))[:rows])


def test_kinds_of_numbers(tmp_path: Path) -> None:
    checkpoint = save(
        tmp_path,
        1,
        [
            NumpyTensor("half", np.array([0.5], ml_dtypes.bfloat16)),
            NumpyTensor("text", np.array(["a"])),
            NumpyTensor("x", TABLE),
        ],
    )
    tensors = [NumpyTensor("half", np.zeros(1, np.float32)), NumpyTensor("text", np.zeros(1, np.float32))]
    report = warm_start(checkpoint, [*tensors, NumpyTensor("x", np.zeros(12, np.float32))], crop_or_pad=True)
    assert tensors[0].array[0] == 0.5
    assert [name for name, _, _ in report.mismatched] == ["text", "x"]  # another kind, another rank


def test_nothing_fits(checkpoint: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match=r"nothing of .* fits .* it holds table, bias, and the model has head"):
        warm_start(checkpoint, list(model(head=(2,)).values()))
