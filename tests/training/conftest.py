"""Tiny training runs."""

from __future__ import annotations

from training_runs import data

__all__ = ["data"]
