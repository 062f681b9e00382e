"""What it is worth that the process keeps memory which was freed: `training.memory`.

    python -m tools.bench.memory [--models MultiTower DeepFM] [--rounds 13]

The case of `tools.bench.training`, from Parquet, trained with and without it in turn (see `_rates`): medians, with
quartiles. Page faults are those that were served without the disk.
"""

from __future__ import annotations

import dataclasses
import functools
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from easyrec_lite import _runs, _training
from easyrec_lite.config import PipelineConfig
from easyrec_lite.terminal import main_guard, table
from easyrec_lite.training import Callback, StepsResult, Trainer
from tools.bench import _common
from tools.bench._cases import MODELS, Case, config_of, write_rows
from tools.bench._rates import EDITS, batches, cpu_ratios, rates_in_turn, ratios

_WITHOUT, _WITH = "given back", "kept"


def _config(model: str, data: Path, kind: str, folder: Path) -> PipelineConfig:
    if kind == _WITHOUT:
        _runs.keep_freed_memory = lambda: False
    return config_of(model, Case(), data, folder, EDITS)


class _Faults(Callback):
    """Counts page faults a step."""

    def __init__(self) -> None:
        self._first: tuple[int, int] | None = None
        self.per_step = 0.0

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """A call of the loop is over."""
        now = trainer.step, resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        if trainer.step <= 16:
            self._first = now
        elif self._first is not None:
            self.per_step = (now[1] - self._first[1]) / (now[0] - self._first[0])


def faults(model: str, data: Path, kind: str) -> float:
    """Page faults a step; in a process of its own."""
    counted = _Faults()
    with tempfile.TemporaryDirectory() as folder:
        config = _config(model, data, kind, Path(folder))
        config.message.train_config.num_steps = 80
        _training.train(config, _training.TrainOptions(callbacks=[counted]))
    return counted.per_step


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _common.parser("memory", __doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["MultiTower", "DeepFM"])
    parser.add_argument("--rounds", type=int, default=13)
    flags = parser.parse_args(argv)
    lines, results = [], {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.parquet"
        write_rows(data, dataclasses.replace(Case(), rows=Case.batch * batches(flags.rounds)))
        for model in flags.models:
            builds = {kind: functools.partial(_config, model, data, kind) for kind in (_WITHOUT, _WITH)}
            found = rates_in_turn(builds, flags.rounds, lambda kind, rate: print(f"{kind}: {rate}", file=sys.stderr))
            results[model] = found
            for kind, rates in found.items():
                count, others = _common.in_own_process(faults, model, data, kind), found[_WITHOUT]
                texts = (ratios(rates, others).text(), cpu_ratios(rates, others).text())
                lines.append((model, kind, f"{count:,.0f}", *texts))
    table("Freed memory", ("model", "memory", "page faults a step", "x rate", "x CPU"), lines)
    _common.keep(flags.json, "memory", {"rounds": flags.rounds, "models": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
