"""The HTML report of a study; it needs nothing from elsewhere."""

from __future__ import annotations

import functools
import io
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from easyrec_lite._html import Html, element, page, table
from easyrec_lite.checkpoints import atomic_write_text
from easyrec_lite.tuning import Objective, SharedStudy, reason_of, text_of
from easyrec_lite.tuning.results import seconds_of, values_text

REPORT = "report.html"
_MOST_SLICES = 24
# The drawings are dark on white, whatever the page is.
_PLOT_STYLE = Html("<style>.plot { background: #fff; } .plot svg text { fill: #333; font-size: inherit; }</style>")
_numbers = itertools.count()
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "easyrec_lite",
    "font.size": 9,
    "figure.figsize": (8.5, 3.8),
    "axes.grid": True,
    "grid.alpha": 0.3,
}


def write_report(directory: Path, study: SharedStudy, best: Sequence[FrozenTrial]) -> Path:
    """Writes `report.html`: summary, history, importance, parallel coordinates, slices, all trials."""
    path = directory / REPORT
    title = f"Study {study.name}"
    matplotlib.use("agg")
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's, that its drawings are experimental
        content = [_PLOT_STYLE, *_summary(study, best), *_drawings(study), *_all_trials(study)]
    atomic_write_text(path, page(title, *content))
    return path


def _summary(study: SharedStudy, best: Sequence[FrozenTrial]) -> Iterator[Html]:
    trials = study.trials()
    counts = {state.name.lower(): sum(trial.state is state for trial in trials) for state in TrialState}
    yield element("p", ", ".join(f"{count} {name}" for name, count in counts.items() if count), class_="soft")
    if not best:
        yield element("p", "No trial is complete.")
        return
    yield element("h2", "Best trial" if len(best) == 1 else f"Best trade-offs ({len(best)})")
    for trial in best:
        yield element("h3", f"Trial {trial.number}: {values_text(trial, study.space)}")
        yield table(("choice", "value"), [(name, text_of(value)) for name, value in trial.params.items()])


def _drawings(study: SharedStudy) -> Iterator[Html]:
    complete = study.trials(TrialState.COMPLETE)
    objectives = study.space.objectives
    if not complete:
        return
    if len(objectives) == 2:
        yield from _section("Trade-offs", lambda: plots.plot_pareto_front(study.study))
    for index, objective in enumerate(objectives):
        yield from _of_objective(study, complete, objective, index)


def _of_objective(
    study: SharedStudy, complete: Sequence[FrozenTrial], objective: Objective, index: int
) -> Iterator[Html]:
    inner, name = study.study, objective.metric
    several = len(study.space.objectives) > 1
    options: dict[str, Any] = {"target_name": name}
    if several:
        options["target"] = lambda trial: trial.values[index]
    suffix = f": {name}" if several else ""
    yield from _section(f"History{suffix}", lambda: plots.plot_optimization_history(inner, **options))
    if not several and any(trial.intermediate_values for trial in study.trials()):
        yield from _section("Evaluations during training", lambda: plots.plot_intermediate_values(inner), legend=False)
    used = {parameter for trial in complete for parameter in trial.params}
    varied = [
        choice.name
        for choice in study.space.choices
        if choice.name in used and len({trial.params.get(choice.name) for trial in complete}) > 1
    ]
    if not varied:
        return
    in_all = [name for name in varied if all(name in trial.params for trial in complete)]
    if in_all:
        yield from _section(
            f"Importance{suffix}", lambda: plots.plot_param_importances(inner, params=in_all, **options)
        )
        shown = in_all[:10]
        yield from _section(
            f"Parallel coordinates{suffix}", lambda: plots.plot_parallel_coordinate(inner, params=shown, **options)
        )
    slices = []
    for parameter in varied[:_MOST_SLICES]:
        drawing = _draw(functools.partial(plots.plot_slice, inner, params=[parameter], **options), (4.2, 3.2))
        if drawing is not None:
            slices.append(element("div", drawing, class_="card plot"))
    if slices:
        yield element("h2", f"Slices{suffix}")
        yield element("div", *slices, class_="charts")


def _section(title: str, plot: Callable[[], Any], legend: bool = True) -> Iterator[Html]:
    drawing = _draw(plot, legend=legend)
    if drawing is not None:
        yield element("h2", title)
        yield element("div", drawing, class_="card plot")


def _draw(plot: Callable[[], Any], size: tuple[float, float] | None = None, legend: bool = True) -> Html | None:
    """A drawing of Optuna's as SVG; None where the trials are too few or too alike for it."""
    try:
        axes = plot()
    except (ValueError, RuntimeError, ZeroDivisionError):
        pyplot.close("all")
        return None
    figure = pyplot.gcf()
    first = axes.flat[0] if hasattr(axes, "flat") else axes
    first.set_title("")
    if not legend and first.get_legend() is not None:
        first.get_legend().remove()
    figure.set_size_inches(*(size or matplotlib.rcParams["figure.figsize"]))
    file = io.StringIO()
    figure.savefig(
        file, format="svg", bbox_inches="tight", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    pyplot.close("all")
    svg = file.getvalue()
    # The size is the page's to say.
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r"\1", svg[svg.index("<svg") :], count=1)
    return Html(_with_own_ids(svg))


def _with_own_ids(svg: str) -> str:
    """Ids of drawings on one page must not be the same, or one is clipped by the other's frame."""
    prefix = f"d{next(_numbers)}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", svg)


def _all_trials(study: SharedStudy) -> Iterator[Html]:
    metrics = [objective.metric for objective in study.space.objectives]
    rows = []
    for trial in study.trials():
        values = (
            list(trial.values or [None] * len(metrics)) if trial.state is TrialState.COMPLETE else [None] * len(metrics)
        )
        choices = ", ".join(f"{name}={text_of(value)}" for name, value in trial.params.items())
        seconds = seconds_of(trial) if trial.state.is_finished() else None
        rows.append((trial.number, trial.state.name.lower(), *values, seconds, choices, reason_of(trial)))
    yield element("h2", "Trials")
    yield table(("trial", "state", *metrics, "seconds", "choices", "reason"), rows)
