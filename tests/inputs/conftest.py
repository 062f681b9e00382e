from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from input_rows import data_config

from easyrec_lite.inputs import BadRows, WindowedSource, open_source


@pytest.fixture
def open_text(tmp_path: Path) -> Callable[..., WindowedSource]:
    """Opens a text as a file."""

    def opener(
        text: str | bytes, *, name: str = "rows.csv", bad: BadRows | None = None, **options: Any
    ) -> WindowedSource:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        config = data_config(input_type="CSVInput", **options)
        return open_source(config, path, batch_size=100, shuffle=False, bad_rows=bad)

    return opener
