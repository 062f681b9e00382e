"""Commands as people call them, run in this process."""

from __future__ import annotations

import contextlib
import importlib
import io
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples" / "configs"

# Sizes at which a sample config trains in seconds.
_SMALL = (
    "data_config.batch_size=128",
    "data_config.shuffle_window=500",
    "train_config.num_steps=12",
    "train_config.save_checkpoints_steps=6",
    "train_config.log_step_count_steps=3",
    "features[user_id].hash_bucket_size=500",
    "features[item_id].hash_bucket_size=300",
)


@dataclass(frozen=True)
class Run:
    """What a command did: its exit code and what it wrote."""

    code: int
    out: str
    err: str


def command(name: str, *arguments: object) -> Run:
    """Runs `python -m easyrec_lite.<name>` with these arguments."""
    main = importlib.import_module(f"easyrec_lite.{name}").main
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse's way
            code = end.code if isinstance(end.code, int) else 1
    return Run(code, out.getvalue(), err.getvalue())


def small(data: Path, model_dir: Path, *edits: str, history: bool = True) -> list[str]:
    """Flags that train a sample config on the small data set."""
    paths = (f"train_input_path={data}/train/*.parquet", f"eval_input_path={data}/eval/*.parquet")
    more = ("features[hist_item_id].hash_bucket_size=300",) if history else ()
    flags = [flag for edit in (*paths, *_SMALL, *more, *edits) for flag in ("--edit", edit)]
    return [*flags, "--model_dir", str(model_dir)]


def refused(run: Run) -> str:
    """The message of a command that refused what it was given, as a person reads it."""
    assert run.code == 2, run
    assert "Traceback" not in run.err
    assert "fault of easyrec_lite" not in run.err
    assert run.err.strip()
    return run.err
