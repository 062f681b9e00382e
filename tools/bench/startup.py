"""From the start of the process to the end of the first training step, as a multiple of `import tensorflow`.

    python -m tools.bench.startup [--rounds 5] [--models multi_tower din] [--imports]

Each round starts Python with `import tensorflow` and nothing else, then training on each sample config (with little
generated data), each in a process of its own, until the import or the first step is done. Medians over the rounds; a
round before them, which doesn't count, warms up the file system's cache. The goal is 4 times. The parts tell where the
time goes; `--imports` lists the packages whose own modules take longest to import.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from easyrec_lite.terminal import main_guard, table
from tools.bench import _common
from tools.bench._common import Spread

MODELS = ("multi_tower", "din", "dssm", "dbmtl", "deepfm")
GOAL = 4.0

_TENSORFLOW = "import tensorflow; print('{}', flush=True)"
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")
_TOP_IMPORTS = 20


@dataclasses.dataclass
class Start:
    """How a model's training starts: seconds to the end of the first step, multiples of the import, seconds by part."""

    model: str
    seconds: Spread
    times: Spread
    parts: dict[str, float]

    @property
    def reached(self) -> bool:
        """Whether it is within the goal."""
        return self.times.median <= GOAL


def until_line(arguments: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Runs this Python until it prints a JSON object; the seconds that took, and the object.

    Raises:
        BenchError: it ended without one.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=_common.ROOT,
        env=_common.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("{"):
                return time.perf_counter() - start, json.loads(line)
        assert process.stderr is not None
        raise _common.BenchError(
            f"{' '.join(arguments)} did not get to its first step:\n{process.stderr.read()[-3000:]}"
        )
    finally:
        process.kill()
        process.communicate()


def first_step(model: str, data: Path) -> tuple[float, dict[str, float]]:
    """Seconds to the end of the first step on the sample config of `model`, and the parts."""
    config = _common.SAMPLES / f"{model}_taobao.config"
    with tempfile.TemporaryDirectory() as folder:
        paths = [f'{part}_input_path="{data / part / "*.parquet"}"' for part in ("train", "eval")]
        overrides = [f'model_dir="{folder}/model"', *paths]
        return until_line(["-m", "tools.bench._first_step", repr(time.time()), str(config), *overrides])


def measure(models: Sequence[str], data: Path, rounds: int) -> tuple[Spread, list[Start]]:
    """`import tensorflow` and the models, one after the other, `rounds` times and once before."""
    imports: list[float] = []
    taken: dict[str, list[tuple[float, dict[str, float]]]] = {model: [] for model in models}
    for number in range(rounds + 1):
        counts = number > 0
        seconds = until_line(["-c", _TENSORFLOW])[0]
        if counts:
            imports.append(seconds)
        for model in models:
            found = first_step(model, data)
            if counts:
                taken[model].append(found)
    return Spread.of(imports), [start_of(model, imports, runs) for model, runs in taken.items()]


def start_of(model: str, imports: Sequence[float], runs: Sequence[tuple[float, dict[str, float]]]) -> Start:
    """Medians over the rounds; the multiple is taken within each round."""
    seconds = [run[0] for run in runs]
    parts = {part: Spread.of(run[1].get(part, 0.0) for run in runs).median for part in runs[0][1]}
    times = Spread.of(whole / alone for whole, alone in zip(seconds, imports, strict=True))
    return Start(model, Spread.of(seconds), times, parts)


def import_seconds(report: str) -> list[tuple[str, float]]:
    """Seconds by package from what `python -X importtime` prints, the slowest first."""
    packages: dict[str, float] = defaultdict(float)
    for microseconds, module in _IMPORT.findall(report):
        parts = module.split(".")
        packages[".".join(parts[:2]) if parts[0] == "easyrec_lite" else parts[0]] += int(microseconds) * 1e-6
    return sorted(packages.items(), key=lambda item: -item[1])


def show(alone: Spread, starts: Sequence[Start]) -> None:
    """Prints the tables."""
    lines = [
        (start.model, start.seconds.text(), start.times.text(), "yes" if start.reached else "NO") for start in starts
    ]
    title = f"First step after the start of the process; `import tensorflow` takes {alone.text()} s: median (quartiles)"
    table(title, ("model", "seconds", "x import tensorflow", f"within {GOAL:g}"), lines)
    parts = list(dict.fromkeys(part for start in starts for part in start.parts))
    rows = [(part, *(f"{start.parts.get(part, 0.0):.2f}" for start in starts)) for part in parts]
    table("\nParts, seconds", ("part", *(start.model for start in starts)), rows)


def show_imports() -> list[tuple[str, float]]:
    """Prints the slowest packages of what the train command imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "from easyrec_lite import _training, _progress"],
        cwd=_common.ROOT,
        env=_common.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    packages = import_seconds(done.stderr)
    lines = [(name, f"{seconds:.3f}") for name, seconds in packages[:_TOP_IMPORTS]]
    table("\nImports, seconds in the package's own modules (slower than without the report)", ("package", "s"), lines)
    return packages


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 1 if a model misses the goal."""
    parser = _common.parser("startup", __doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--imports", action="store_true", help="list the slowest imports too")
    flags = parser.parse_args(argv)
    from tools.data.taobao_like import generate

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        generate(data, 20_000, users=5_000, items=5_000)
        alone, starts = measure(flags.models, data, flags.rounds)
    show(alone, starts)
    imports = show_imports() if flags.imports else []
    results = {"import_tensorflow": alone, "models": starts, "imports": dict(imports)}
    _common.keep(flags.json, "startup", results)
    return 1 if any(not start.reached for start in starts) else 0


if __name__ == "__main__":
    sys.exit(main())
