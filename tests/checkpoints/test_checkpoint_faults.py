"""Damage and misfits are named, all at once."""

from __future__ import annotations

import errno
import json
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easyrec_lite.checkpoints import Checkpoint, CheckpointError, Files, NumpyTensor, find, latest, save
from easyrec_lite.checkpoints._json import canonical

TABLE = np.arange(400_000, dtype=np.float32).reshape(-1, 8)
BIAS = np.arange(8, dtype=np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    tensors = [NumpyTensor("deep/table", TABLE), NumpyTensor("bias", BIAS)]
    return save(tmp_path_factory.mktemp("model"), 1000, tensors, arrays={"auc": np.zeros(4)}, state={"x": 1})


def flip(path: Path, position: int) -> None:
    with open(path, "rb+") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1]))


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_any_flipped_byte_is_found_and_its_file_named(saved: Checkpoint, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(saved.path.iterdir())))
    position = data.draw(st.integers(0, file.stat().st_size - 1))
    flip(file, position)
    try:
        with pytest.raises(CheckpointError, match=file.name):
            Checkpoint(saved.path).verify()
    finally:
        flip(file, position)
    Checkpoint(saved.path).verify()


def test_a_flipped_byte_anywhere_in_the_manifest_is_found(saved: Checkpoint) -> None:
    file = saved.path / "manifest.json"
    for position in range(200):
        flip(file, position)
        try:
            with pytest.raises(CheckpointError, match=file.name):
                Checkpoint(saved.path)
        finally:
            flip(file, position)


def test_verify_names_every_damaged_file(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 1, [NumpyTensor("t", TABLE), NumpyTensor("u", TABLE), NumpyTensor("bias", BIAS)])
    os.truncate(checkpoint.path / "00000-t.npy", 1000)
    (checkpoint.path / "00001-u.npy").unlink()
    flip(checkpoint.path / "packed.npys", 150)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.verify()
    lines = str(caught.value).splitlines()
    assert [("ends inside of tensor t" in line, "00001-u.npy: No such file" in line) for line in lines] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    assert "packed.npys: tensor bias: checksum" in lines[2]
    assert "expected" in lines[2]
    for name in ("t", "u", "bias"):
        with pytest.raises(CheckpointError):
            checkpoint.read(name)


def test_all_misfits_are_reported_at_once_before_anything_is_written(saved: Checkpoint) -> None:
    table = NumpyTensor("deep/tabel", np.zeros_like(TABLE))
    bias = NumpyTensor("bias", np.zeros(9, np.float32))
    with pytest.raises(CheckpointError) as caught:
        saved.restore([table, bias, NumpyTensor("new", np.zeros(2))])
    text = str(caught.value)
    assert "(step 1000) does not fit this model" in text
    assert "missing: deep/tabel float32[50000, 8] is not in the checkpoint. Did you mean 'deep/table'?" in text
    assert "missing: new float64[2] is not in the checkpoint." in text
    assert "different: bias is float32[8] there and float32[9] in the model." in text
    assert "unexpected: deep/table float32[50000, 8] is not in the model." in text
    assert not bias.array.any()
    with pytest.raises(CheckpointError, match=r"float32\[8\] there and float64\[8\] in the model"):
        saved.restore([NumpyTensor("bias", np.zeros(8))], strict=False)


def test_not_strict_leaves_out_what_nobody_asks_for(saved: Checkpoint) -> None:
    bias = NumpyTensor("bias", np.zeros(8, np.float32))
    saved.restore([bias], strict=False)
    np.testing.assert_array_equal(bias.array, BIAS)
    with pytest.raises(CheckpointError, match="unexpected: deep/table"):
        saved.restore([bias])
    with pytest.raises(CheckpointError, match="missing: other"):
        saved.restore([bias, NumpyTensor("other", np.zeros(8, np.float32))], strict=False)


def test_reading_an_unknown_name_suggests_one(saved: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match=r"no tensor 'bais'\. Did you mean 'bias'"):
        saved.read("bais")


def rewrite(path: Path, **changes: object) -> None:
    manifest = json.loads((path / "manifest.json").read_text()) | changes
    del manifest["checksum"]
    manifest["checksum"] = zlib.crc32(canonical(manifest))
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is nothing of that name"):
        find(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"it has no manifest.json. Expected a model_dir"):
        find(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is not the manifest of a checkpoint"):
        Checkpoint(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"manifest.json: not JSON"):
        Checkpoint(tmp_path)


def test_newer_formats_are_refused(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 1, [], environment={"easyrec_lite": "9.1"})
    rewrite(checkpoint.path, format_version=2)
    with pytest.raises(CheckpointError, match=r"has format 2 .* reads up to 1: install easyrec_lite 9.1 or newer"):
        latest(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../secret"},
        {"offset": -1},
        {"shape": [9, 9]},
        {"shape": [-1]},
        {"dtype": "O"},
        {"dtype": "no"},
        {"size": "x"},
    ],
)
def test_a_forged_manifest_reads_nothing_outside(tmp_path: Path, changes: dict[str, object]) -> None:
    checkpoint = save(tmp_path, 1, [NumpyTensor("bias", BIAS)])
    rewrite(checkpoint.path, tensors=[checkpoint.manifest["tensors"][0] | changes])
    with pytest.raises(CheckpointError, match=r"manifest.json: tensors"):
        Checkpoint(checkpoint.path).names()


class FailingFiles(Files):
    """Fails in the n-th write."""

    def __init__(self, code: int, nth: int) -> None:
        super().__init__()
        self._code, self._left = code, nth

    def write(self, file: BinaryIO, data: bytes | bytearray | memoryview) -> None:
        self._left -= 1
        if self._left == 0:
            raise OSError(self._code, os.strerror(self._code))
        super().write(file, data)


@pytest.mark.parametrize("nth", [1, 2, 4, 5])
def test_a_full_disk_leaves_no_trace_and_tells_the_need(tmp_path: Path, nth: int) -> None:
    tensors = [NumpyTensor("deep/table", TABLE), NumpyTensor("bias", BIAS)]
    with pytest.raises(CheckpointError, match=r"No space left.* needs 1,600,032 bytes and [\d,]+ are free"):
        save(tmp_path, 1, tensors, files=FailingFiles(errno.ENOSPC, nth))
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_directory_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    class Forbidden(Files):
        def make_dir(self, path: str | os.PathLike[str]) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with pytest.raises(CheckpointError, match=r"Permission denied.*Give this user the right to write there"):
        save(tmp_path, 1, [], files=Forbidden())
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Not a directory"):
        save(tmp_path / "file", 1, [])


def test_an_error_of_the_model_leaves_no_trace(tmp_path: Path) -> None:
    class Broken(NumpyTensor):
        def read(self, start: int, stop: int) -> np.ndarray:
            raise RuntimeError("device lost")

    with pytest.raises(RuntimeError, match="device lost"):
        save(tmp_path, 1, [Broken("x", BIAS)])
    assert list((tmp_path / "checkpoints").iterdir()) == []
