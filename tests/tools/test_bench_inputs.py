"""The rates of reading: every format gives all rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from easyrec_lite.inputs import as_dataset
from tools.bench.inputs import FORMATS, measure_all, read


@pytest.mark.parametrize("name", FORMATS)
def test_a_pass_reads_all_rows(name: str, tmp_path: Path) -> None:
    done = read(as_dataset(FORMATS[name](tmp_path, 300, np.random.default_rng(0), 128)))
    assert (done.rows, done.batches) == (300, 3)
    assert min(done.seconds, done.cpu_seconds) > 0


def test_each_format_has_a_line_of_as_many_passes_as_asked() -> None:
    results = measure_all(["csv", "csv_gz"], 300, 128, 3)
    assert [one.format for one in results] == ["csv", "csv_gz"]
    assert all(one.rows_per_second.count == 3 for one in results)
    assert results[0].cpu_ms_per_batch.median == pytest.approx(results[0].cpu_us_per_row.median * 300 / 3 / 1e3)
