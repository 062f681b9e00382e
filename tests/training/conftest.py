"""Tiny training runs."""

from __future__ import annotations

import sys
from pathlib import Path

# The small configs and rows are shared with the tests of the models.
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
