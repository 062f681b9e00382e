"""A process whose stream is still read when it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys, threading
import numpy as np
from easyrec_lite.inputs import as_dataset
from easyrec_lite.inputs.batch import RawBatch
from easyrec_lite.inputs.schema import ColumnSpec
from easyrec_lite.inputs.source import Source
from easyrec_lite.protos.data_pb2 import DatasetConfig

class Position:
    def to_json(self):
        return "{}"

class Stream(Source):
    '''Some batches, and then none until it is closed.'''
    def __init__(self, batches):
        self.batches, self.closed = batches, threading.Event()
    @property
    def columns(self):
        return {"x": ColumnSpec("x", DatasetConfig.INT64, 0)}
    def read(self, start=None):
        for _ in range(self.batches):
            yield RawBatch({"x": np.arange(3)}, Position(), 3, {})
        self.closed.wait()
    def close(self):
        self.closed.set()

source = Stream(int(sys.argv[1]))
rows = iter(as_dataset(source))
next(rows)
if sys.argv[2] == "closed":
    source.close()
if sys.argv[2] == "error":
    raise RuntimeError("as scripts end")
print("the end")
"""


@pytest.mark.parametrize("batches", [1, 1000])  # the reader waits for rows, or for somebody to take what it has
@pytest.mark.parametrize("end", ["open", "closed", "error"])
def test_the_interpreter_ends(batches: int, end: str) -> None:
    command = [sys.executable, "-c", SCRIPT, str(batches), end]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == (end == "error"), done.stderr
    assert ("as scripts end" in done.stderr) == (end == "error")
