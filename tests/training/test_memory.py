"""Memory that was freed."""

from __future__ import annotations

import ctypes
import os
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
    assert calls == [(-3, 32 * 1024 * 1024), (-2, 16 * 1024 * 1024)]  # M_MMAP_THRESHOLD, M_TOP_PAD


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
