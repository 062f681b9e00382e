"""The sample notebooks are shipped with clean outputs, and run."""

from __future__ import annotations

import nbformat
import pytest

from tools import notebooks


def test_there_are_three() -> None:
    assert notebooks.names() == ["din_step_by_step", "first_experiment", "tuning"]


@pytest.mark.parametrize("name", notebooks.names())
def test_it_is_shipped_with_its_outputs(name: str) -> None:
    path = notebooks.FOLDER / f"{name}.ipynb"
    assert path.stat().st_size <= notebooks.MOST_BYTES
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == list(range(1, len(codes) + 1))
    assert sum(bool(cell.outputs) for cell in codes) >= len(codes) / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", notebooks.names())
def test_it_runs(name: str) -> None:
    """From start to end, with as many outputs as it is shipped with."""
    shipped = nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4)
    fresh = notebooks.run(name)
    for old, new in zip(shipped.cells, fresh.cells, strict=True):
        assert old.source == new.source
        assert len(old.get("outputs", [])) == len(new.get("outputs", []))


def test_what_another_machine_would_show_otherwise_is_refused() -> None:
    warning = nbformat.v4.new_output("stream", name="stderr", text="careful")
    with pytest.raises(ValueError, match="standard error"):
        notebooks._check_output("here", warning)
    path = nbformat.v4.new_output("stream", name="stdout", text=f"{notebooks.ROOT}/runs")
    with pytest.raises(ValueError, match="path of this machine"):
        notebooks._check_output("here", path)
    notebooks._check_output("here", nbformat.v4.new_output("stream", name="stdout", text="runs/a"))
