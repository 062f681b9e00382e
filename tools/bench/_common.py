"""What the benchmarks share: medians, idle waiting, processes, and how results are kept."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from easyrec_lite.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples" / "configs"

_TAIL = 3000  # characters of a failed process's output that are shown


class BenchError(UserError):
    """A benchmark can't go on: a process failed, or the data isn't there."""


class Enough(Exception):  # noqa: N818 - nothing went wrong
    """Everything is measured: leaves a training loop before it writes a checkpoint."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of one value at least."""
        ordered = sorted(float(value) for value in values)
        if not ordered:
            raise ValueError("Expected at least one measurement.")
        if len(ordered) == 1:
            return cls(ordered[0], ordered[0], ordered[0], 1)
        low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
        return cls(median, low, high, len(ordered))

    def scaled(self, factor: float) -> Spread:
        """In another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.count)

    def text(self, digits: int = 2) -> str:
        """`median (low .. high)`."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} .. {self.high:.{digits}f})"


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (NaN of fewer than two values)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else float("nan")


def wait_until_idle(share: float = 0.05, window: float = 0.05, timeout: float = 10.0) -> bool:
    """Waits until this process's threads rest, such as an input pipeline that has filled its buffers.

    Args:
        share: of one core that still counts as rest.
        window: seconds over which it is measured.
        timeout: seconds after which it gives up.

    Returns:
        Whether they rest.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        cpu = time.process_time()
        time.sleep(window)
        if time.process_time() - cpu < share * window:
            return True
    return False


def peak_bytes() -> int:
    """The largest resident set this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def python(arguments: Sequence[str | os.PathLike[str]], *, quiet: bool = True) -> str:
    """Runs this Python with `arguments` in the project's folder and returns its standard output.

    Args:
        arguments: such as `["-m", "easyrec_lite.train", ...]`.
        quiet: keep its standard error, and show its end only where it fails; else it goes where ours goes.

    Raises:
        BenchError: it failed.
    """
    done = subprocess.run(
        [sys.executable, *(os.fspath(argument) for argument in arguments)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode:
        output = f"{done.stdout}\n{done.stderr or ''}".strip()[-_TAIL:]
        raise BenchError(f"{' '.join(map(str, arguments))} ended with code {done.returncode}:\n{output}")
    return done.stdout


def in_own_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls a function in a fresh process, so that memory, threads and settings are its own.

    Arguments and result must be picklable; what it raises is raised here.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=fresh) as pool:
        return pool.submit(function, *args, **kwargs).result()


def environment() -> dict[str, str]:
    """Of the processes that are measured: ours, with TensorFlow's log off."""
    return {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}


def train(
    config: str | os.PathLike[str], model_dir: Path, train_path: str, eval_path: str, edits: Iterable[str]
) -> dict[str, float]:
    """Trains by the command, without an export at the end, and returns the last evaluation's metrics.

    Raises:
        BenchError: training failed or had no evaluation.
    """
    paths = ["--train_input_path", train_path, "--eval_input_path", eval_path]
    edits = ["export_config.exporter_type=none", *edits]
    flags = [word for edit in edits for word in ("--edit", edit)]
    python(["-m", "easyrec_lite.train", "--config", config, "--model_dir", model_dir, *paths, *flags])
    return last_evaluation(model_dir / "metrics.jsonl")


def last_evaluation(journal: Path) -> dict[str, float]:
    """The newest evaluation in a `metrics.jsonl`.

    Raises:
        BenchError: there is none.
    """
    records = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    if not evaluations:
        raise BenchError(f"{journal}: expected an evaluation, found {len(records)} records of training only")
    return {name: value for name, value in evaluations[-1].items() if name != "kind"}


def machine() -> dict[str, Any]:
    """What figures depend on beside the code."""
    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy", "pyarrow")},
        "load": os.getloadavg()[0],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of a benchmark, with `--json FILE`."""
    result = argparse.ArgumentParser(
        prog=f"python -m tools.bench.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return result


def keep(path: Path | None, benchmark: str, results: Any) -> None:
    """Writes results with the machine they are from; without a path, nothing."""
    if path is not None:
        record = {"benchmark": benchmark, "machine": machine(), "results": results}
        path.write_text(json.dumps(record, indent=1, default=_plain) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        properties = [name for name, kept in vars(type(value)).items() if isinstance(kept, property)]
        return {name: getattr(value, name) for name in [*(f.name for f in dataclasses.fields(value)), *properties]}
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    return str(value)
