"""How far training is, drawn in place in a notebook; lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from easyrec_lite._html import element
from easyrec_lite._notebook import html
from easyrec_lite._progress import ProgressDisplay
from easyrec_lite.checkpoints import Checkpoint
from easyrec_lite.training import StepsResult, Trainer

T = TypeVar("T")

_SECONDS = 0.2  # between two drawings


class _Handle(Protocol):
    def update(self, shown: Any) -> None: ...


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


class Bar:
    """A bar in the output of a cell, drawn over itself.

    Args:
        name: what is going on.
        total: where it ends; None if nobody knows.
    """

    def __init__(self, name: str, total: int | None) -> None:
        self._name, self._total = name, total
        self._handle: _Handle | None = None
        self._drawn = 0.0
        self.lines: list[str] = []

    def update(self, done: int, text: str, *, force: bool = False) -> None:
        """Draws it, unless it was drawn just now."""
        now = time.monotonic()
        if force or now - self._drawn >= _SECONDS:
            self._drawn = now
            self._show(done, text)

    def _show(self, done: int, text: str) -> None:
        from IPython.display import HTML, display

        share = 100 * min(done / self._total, 1) if self._total else 100
        lines = [element("div", line, class_="dim") for line in self.lines[-6:]]
        bar = element("div", element("div", style=f"width:{share:.1f}%"), class_="bar")
        shown = HTML(html.block(element("div", element("b", self._name), " ", text), bar, *lines))
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)


class NotebookDisplay(ProgressDisplay):
    """The bar of a training run; what stays of it at the end says nothing of the clock, so that reruns look alike."""

    def __init__(self, total_steps: int | None, name: str = "training") -> None:
        super().__init__(total_steps)
        self._total_steps = total_steps
        self._bar = Bar(name, total_steps)
        self._rows = 0
        self._since = time.monotonic()
        self._step = 0

    def on_start(self, trainer: Trainer) -> None:
        """See Callback."""
        self._since, self._step, self._rows = time.monotonic(), trainer.step, 0
        self._bar.update(trainer.step, "is prepared", force=True)

    def on_steps(self, trainer: Trainer, result: StepsResult) -> None:
        """See Callback."""
        self._rows += result.rows
        self._step = trainer.step
        seconds = max(time.monotonic() - self._since, 1e-9)
        parts = [self._steps(), f"{self._rows / seconds:,.0f} rows/s"]
        if (loss := result.mean_losses.get("loss")) is not None:
            parts.append(f"loss {float(loss):.5g}")
        self._bar.update(self._step, "  ".join([*parts, *filter(None, [self._stream()])]))

    def on_evaluation(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """See Callback."""
        shown = "  ".join(f"{name} {html.format_cell(value)}" for name, value in metrics.items())
        if metrics:
            self._bar.lines.append(f"evaluation at step {trainer.step:,}: {shown}")

    def on_checkpoint(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        """See Callback."""

    def record(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """See ProgressDisplay."""
        numbers = {name: value for name, value in values.items() if isinstance(value, float)}
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        self._bar.lines.append(f"{kind} at step {step:,}: {shown}")

    def close(self) -> None:
        """See ProgressDisplay."""
        if self._step:
            self._bar.update(self._step, f"{self._steps()}, {self._rows:,} rows", force=True)
            self._step = 0

    def _steps(self) -> str:
        return f"step {self._step:,}" + (f"/{self._total_steps:,}" if self._total_steps else "")


def track(items: Sequence[T], name: str) -> Iterable[T]:
    """The items, with a bar where there is a notebook."""
    return _tracked(items, name) if in_notebook() else items


def _tracked(items: Sequence[T], name: str) -> Iterator[T]:
    bar = Bar(name, len(items))
    for done, item in enumerate(items):
        bar.update(done, f"{done}/{len(items)}")
        yield item
    bar.update(len(items), f"{len(items)}/{len(items)}", force=True)
