"""Memory that was freed."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from easyrec_lite.training import keep_freed_memory


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What a glibc is told."""
    told: list[tuple[int, int]] = []

    def mallopt(what: int, value: int) -> int:
        told.append((what, value))
        return 1

    library(monkeypatch, mallopt=mallopt, gnu_get_libc_version=None)
    for name in [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]:
        monkeypatch.delenv(name)
    return told


def library(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(**functions))


def test_blocks_of_a_step_stay(calls: list[tuple[int, int]]) -> None:
    assert keep_freed_memory()
    heap = 64 * 1024 * 1024
    assert calls == [(-3, heap // 2), (-2, heap), (-1, 2**30)]  # M_MMAP_THRESHOLD, M_TOP_PAD, M_TRIM_THRESHOLD


_FAULTS = """
import os, resource, sys
import numpy as np
import tensorflow as tf
from easyrec_lite.training import keep_freed_memory

def faults(make):
    before = 0
    for call in range(50):
        if call == 40:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        make()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if "late" in sys.argv:
    tf.zeros([1]) + 1.0
environment = dict(os.environ)
if "left" in sys.argv:
    list(tf.data.Dataset.from_generator(lambda: [0], output_signature=tf.TensorSpec([], tf.int64)))
else:
    keep_freed_memory()
    list(tf.data.Dataset.from_generator(lambda: [0], output_signature=tf.TensorSpec([], tf.int64)))
assert os.environ == environment
block, large = tf.zeros([1 << 20]), tf.zeros([1 << 24])  # 4 MiB, 64 MiB
print(faults(lambda: block + 1.0), faults(lambda: large + 1.0), faults(lambda: np.ones(1 << 19, np.float32)))
"""


def faults(*arguments: str, **environment: str) -> list[int]:
    """Page faults of ten blocks of 4 MiB and ten of 64 MiB that TensorFlow made, and ten of 2 MiB of NumPy."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "TF_CPU_"))}
    command = [sys.executable, "-c", _FAULTS, *arguments]
    done = subprocess.run(command, env=own | environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return [int(count) for count in done.stdout.split()]


@pytest.mark.slow
def test_freed_memory_is_not_asked_for_again() -> None:
    few = 500  # of the 5,120 that ten blocks of 2 MiB take
    block, large, _ = faults("left")  # what it would be like: TensorFlow has glibc give back all
    assert min(block, large) > 10_000
    assert max(faults()) < few
    for block, _, array in (faults("late"), faults(TF_CPU_ALLOCATOR_USE_BFC="false")):
        assert max(block, array) < few  # glibc's: TensorFlow had chosen before, or was told otherwise


@pytest.mark.parametrize("name", ["MALLOC_TOP_PAD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_the_environment_goes_before(calls: list[tuple[int, int]], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()
    assert calls == []


def test_what_glibc_refuses(calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    library(monkeypatch, mallopt=lambda what, value: 0, gnu_get_libc_version=None)
    assert not keep_freed_memory()


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("functions", [{}, {"mallopt": lambda what, value: 1}, {"gnu_get_libc_version": None}])
def test_other_libraries_are_left_alone(functions: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    library(monkeypatch, **functions)
    assert not keep_freed_memory()
