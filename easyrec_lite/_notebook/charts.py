"""Charts as inline SVG, in the colour of the text around them."""

from __future__ import annotations

import functools
import io
import logging
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

P = ParamSpec("P")

# It would say, once a machine, that it looks for fonts.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

# Told apart on white and on black, also by the colour-blind (after Okabe and Ito, 2008).
COLORS = ("#1f9e89", "#d1495b", "#4c78c8", "#c98a00", "#9467bd", "#8c8c8c")
_TEXT = "#010203"  # stands for the colour of the text around the chart

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "easyrec_lite",
    "svg.id": None,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.edgecolor": _TEXT,
    "axes.labelcolor": _TEXT,
    "text.color": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _TEXT,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "font.family": "sans-serif",
    "font.size": 9,
    "lines.linewidth": 1.6,
    "axes.prop_cycle": cycler(color=list(COLORS)),
}


def to_svg(figure: Figure) -> str:
    """The figure as an SVG element to stand in HTML; the same figure gives the same text."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Ids are of the whole page, on which other charts stand too; most of them nothing refers to.
    prefix = f"c{zlib.crc32(svg.encode()):x}"
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda id_: f' id="{prefix}-{id_[1]}"' if id_[1] in used else "", svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{prefix}-", svg)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", svg)  # pixels
    svg = re.sub(r"\s*\n\s*", " ", svg)
    return svg.replace(_TEXT, "currentColor").replace("sans-serif", "system-ui, sans-serif")


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draws in our style, and leaves that of the user's own figures alone."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


@_styled
def learning_curves(history: pd.DataFrame) -> Figure:
    """One small chart a loss or metric: training as a line, evaluations as points joined.

    Losses of tasks are drawn where there are several.
    """
    skip = {"step", "kind", "rows", "rows_per_second"}
    shown = history[history["kind"].isin(["train", "evaluation"])]
    names = [name for name in shown.columns if name not in skip and shown[name].notna().any()]
    names = [name for name in names if pd.api.types.is_numeric_dtype(shown[name])]
    parts = [name for name in names if name.endswith("_loss") and name != "regularization_loss"]
    if len(parts) < 2:  # the loss of the only task is the loss
        names = [name for name in names if not name.endswith("_loss")]
    figure, axes = _figure(max(len(names), 1), width=3.6, height=2.4)
    for axis, name in zip(axes, names, strict=False):
        for kind, style in (("train", "-"), ("evaluation", "o-")):
            of_kind = shown[(shown["kind"] == kind) & shown[name].notna()]
            if len(of_kind):
                color = COLORS[0] if kind == "train" else COLORS[1]
                axis.plot(of_kind["step"], of_kind[name], style, markersize=3, label=kind, color=color)
        axis.set_title(name)
        axis.set_xlabel("step")
        axis.legend()
    return figure


@_styled
def calibration_chart(table: pd.DataFrame, title: str) -> Figure:
    """Rates over mean scores with their 95 % intervals; the diagonal is perfect."""
    figure, (axis,) = _figure(1, width=4.2, height=3.6)
    top = float(max(table["score"].max(), table["rate_high"].max())) * 1.05
    axis.plot([0, top], [0, top], "--", color=_TEXT, alpha=0.5, linewidth=1, label="perfect")
    errors = [table["rate"] - table["rate_low"], table["rate_high"] - table["rate"]]
    axis.errorbar(table["score"], table["rate"], yerr=errors, fmt="o-", markersize=3.5, linewidth=1.2, label="model")
    axis.set(xlabel="mean score", ylabel="share of positives", title=title, xlim=(0, top), ylim=(0, top))
    axis.legend()
    return figure


@_styled
def distribution_chart(table: pd.DataFrame, title: str) -> Figure:
    """Histograms of the scores of negatives and positives, each of area 1."""
    figure, (axis,) = _figure(1, width=5.2, height=3.0)
    edges = np.append(table["low"].to_numpy(), table["high"].to_numpy()[-1])
    for name, color in (("negative", COLORS[2]), ("positive", COLORS[1])):
        axis.stairs(table[name].to_numpy(), edges, fill=True, alpha=0.35, color=color)
        axis.stairs(table[name].to_numpy(), edges, color=color, label=f"{name} rows", linewidth=1.4)
    axis.set(xlabel="score", ylabel="share of rows", title=title)
    axis.legend()
    return figure


@_styled
def bar_chart(names: Sequence[str], values: Sequence[float], errors: Sequence[float] | None, label: str) -> Figure:
    """Bars from top to bottom, with their standard deviations."""
    figure, (axis,) = _figure(1, width=6.2, height=0.6 + 0.2 * max(len(names), 3))
    places = np.arange(len(names))
    known = None if errors is None else np.nan_to_num(np.asarray(errors, float))
    axis.barh(places, values, xerr=known, color=COLORS[0], alpha=0.85, height=0.7, error_kw={"ecolor": _TEXT})
    axis.set_yticks(places, [_shorten(name) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlabel(label)
    axis.grid(axis="y", visible=False)
    return figure


@_styled
def interval_chart(table: pd.DataFrame) -> Figure:
    """One small chart a metric: each model's value with its interval."""
    metrics = list(dict.fromkeys(table["metric"]))
    models = list(dict.fromkeys(table["model"]))
    figure, axes = _figure(len(metrics), width=3.6, height=0.8 + 0.28 * len(models))
    for axis, metric in zip(axes, metrics, strict=False):
        rows = table[table["metric"] == metric]
        errors = np.maximum([rows["value"] - rows["low"], rows["high"] - rows["value"]], 0)
        axis.errorbar(rows["value"], np.arange(len(rows)), xerr=errors, fmt="o", capsize=3, color=COLORS[0])
        axis.set_yticks(np.arange(len(rows)), [_shorten(name) for name in rows["model"]])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_title(metric)
    return figure


@_styled
def lines_chart(lines: Mapping[str, Sequence[float]], x_label: str, y_label: str) -> Figure:
    """Lines over 0, 1, 2, ..."""
    figure, (axis,) = _figure(1, width=5.2, height=3.0)
    for name, values in lines.items():
        axis.plot(values, label=_shorten(name))
    axis.set(xlabel=x_label, ylabel=y_label)
    axis.legend()
    return figure


def _figure(charts: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    columns = min(charts, 3)
    rows = -(-charts // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel().tolist()
    for axis in axes[charts:]:
        axis.remove()
    return figure, axes[:charts]


def _shorten(name: str, most: int = 40) -> str:
    # $ would begin mathematics
    text = str(name).replace("$", r"\$")
    return text if len(text) <= most else text[: most - 1] + "…"
