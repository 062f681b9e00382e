"""Runs the notebooks of samples/notebooks and keeps their outputs.

    python -m tools.notebooks [NAME ...] [--check]

Each runs in a kernel of its own from the root of the repository. It fails if a cell fails, says something on standard
error, or shows a path of this machine; and if a notebook takes too long or grows too large. `--check` writes nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

from easyrec_lite.checkpoints import atomic_write_text

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "samples" / "notebooks"
MOST_SECONDS = 600  # of a cell, on whatever machine
MOST_BYTES = 300_000


def names() -> list[str]:
    """The notebooks, by name without ending."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def run(name: str) -> NotebookNode:
    """The notebook with the outputs of a run of its own.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
        ValueError: an output is not fit to be shipped.
    """
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    # The last bits of a sum, and with them a shipped output, depend on the number of threads.
    environment = {"TF_NUM_INTRAOP_THREADS": "2", "TF_NUM_INTEROP_THREADS": "2", "PYTHONPATH": str(ROOT)}
    client = NotebookClient(
        notebook,
        timeout=MOST_SECONDS,
        kernel_name="python3",
        config=Config({"ConnectionFileMixin": {"transport": "ipc"}}),  # no ports, which others could listen on
        resources={"metadata": {"path": str(ROOT)}},
        record_timing=False,
    )
    client.execute(env={**os.environ, **environment})
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            _check_output(f"{name}, cell {number}", output)
    size = len(nbformat.writes(notebook).encode())
    if size > MOST_BYTES:
        raise ValueError(f"{name}: found {size:,} bytes; expected at most {MOST_BYTES:,}, for the repository's sake.")
    return notebook


def _check_output(place: str, output: NotebookNode) -> None:
    """Raises ValueError for warnings and for what another machine would show otherwise."""
    text = nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])]))
    if output.get("name") == "stderr":
        raise ValueError(f"{place}: found text on standard error; expected none: {output['text'][:500]}")
    for path in {str(ROOT), str(Path.home()), sys.prefix}:
        if len(path) > 1 and f"{path}/" in text:
            raise ValueError(
                f"{place}: found a path of this machine, {path}; expected paths from the repository's root."
            )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; all by default")
    parser.add_argument("--check", action="store_true", help="leave the files as they are")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(names()):
        parser.error(f"found {', '.join(sorted(unknown))}; expected some of {', '.join(names())}")
    for name in options.names or names():
        started = time.monotonic()
        notebook = run(name)
        if not options.check:
            atomic_write_text(FOLDER / f"{name}.ipynb", nbformat.writes(notebook) + "\n")
        print(f"{name}: {len(notebook.cells)} cells, {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
