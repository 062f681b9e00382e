"""A result to look at: a frame to go on with, and how a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from easyrec_lite._html import Html, element
from easyrec_lite._notebook import html

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_MOST_ROWS = 30  # of a frame as text


@dataclass(frozen=True, eq=False)
class View:
    """A table, with a chart of it.

    Attributes:
        title: what it shows.
        frame: the numbers.
        figure: a matplotlib figure of them, to be changed or saved; None where there is none.
        notes: what else there is to say.
        open: whether the table is shown at once, rather than at a click.
    """

    title: str
    frame: pd.DataFrame
    figure: Figure | None = None
    notes: str = ""
    open: bool = True

    def _repr_html_(self) -> str:
        parts = [html.heading(self.title, self.notes)]
        if self.figure is not None:
            from easyrec_lite._notebook.charts import to_svg

            parts.append(Html(to_svg(self.figure)))
        table = html.frame_table(self.frame)
        parts.append(table if self.open else html.details(f"{len(self.frame)} rows", table))
        return html.block(*parts)

    def __repr__(self) -> str:
        head = f"{self.title} ({self.notes})" if self.notes else self.title
        return f"{head}\n{self.frame.to_string(index=False, max_rows=_MOST_ROWS)}"


@dataclass(frozen=True, eq=False)
class Metrics:
    """Metrics by name: `metrics["auc"]`, `dict(metrics)`.

    Attributes:
        values: by name.
        step: of the checkpoint that was evaluated.
        title: what it shows.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    step: int = 0
    title: str = "Evaluation"

    @property
    def frame(self) -> pd.DataFrame:
        """One row a metric."""
        return pd.DataFrame({"metric": list(self.values), "value": list(self.values.values())})

    def keys(self) -> list[str]:
        """Names of the metrics."""
        return list(self.values)

    def __getitem__(self, name: str) -> float:
        if name not in self.values:
            raise KeyError(f"{name!r}: there are {', '.join(self.values) or 'no metrics'}")
        return self.values[name]

    def _repr_html_(self) -> str:
        note = f"at step {self.step:,}"
        return html.block(html.heading(self.title, note), html.table(("metric", "value"), list(self.values.items())))

    def __repr__(self) -> str:
        shown = "  ".join(f"{name} {html.format_cell(value)}" for name, value in self.values.items())
        return f"{self.title} at step {self.step:,}: {shown}"


@dataclass(frozen=True, eq=False)
class Drawing:
    """A picture with the same said in text.

    Attributes:
        title: what it shows.
        svg: an SVG element.
        text: the same for terminals.
    """

    title: str
    svg: str = field(repr=False)
    text: str = field(repr=False)

    def _repr_html_(self) -> str:
        return html.block(html.heading(self.title), Html(self.svg))

    def __repr__(self) -> str:
        return self.text

    __str__ = __repr__


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models beside each other.

    Attributes:
        config: one row a field in which the configs differ, one column a model.
        metrics: one row a metric and model, with intervals; see `compare`.
        notes: how the intervals were made.
    """

    config: pd.DataFrame
    metrics: pd.DataFrame
    notes: str = ""

    def _repr_html_(self) -> str:
        from easyrec_lite._notebook.charts import interval_chart, to_svg

        differences = html.frame_table(self.config) if len(self.config) else element("p", "None.", class_="dim")
        return html.block(
            html.heading("Differences of the configs"),
            differences,
            html.heading("Metrics", self.notes),
            Html(to_svg(interval_chart(self.metrics))),
            html.frame_table(self.metrics),
        )

    def __repr__(self) -> str:
        config = self.config.to_string(index=False) if len(self.config) else "none"
        return f"Differences of the configs\n{config}\n\nMetrics ({self.notes})\n{self.metrics.to_string(index=False)}"
