"""The drawings of the drift report, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from easyrec_lite._html import Html, element, number

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 300, 104, 54, 10, 18
_LINE_WIDTH, _LINE_HEIGHT = 1000, 64


@dataclass(frozen=True)
class Point:
    """A check of a subject in a window.

    Attributes:
        row: the first row behind the window.
        value: what was measured.
        reference: what it is compared with.
        low: the least value that is within the threshold; None without one on that side.
        high: the greatest one.
        breached: whether it was found too far off; a value past the threshold may still be chance.
    """

    row: int
    value: float | None
    reference: float | None
    low: float | None
    high: float | None
    breached: bool

    @property
    def severity(self) -> float:
        """How far the value is from the reference, in thresholds."""
        if self.value is None:
            return 0.0
        bound = self.high if self.reference is None or self.value >= self.reference else self.low
        if bound is None:
            return 0.0
        start = self.reference if self.reference is not None else 0.0
        allowed = abs(bound - start)
        return abs(self.value - start) / allowed if allowed else (math.inf if self.value != start else 0.0)


def chart(points: Sequence[Point]) -> Html:
    """Values over windows, with reference and bounds; breaches are marked."""
    lines = {name: [getattr(point, name) for point in points] for name in ("value", "reference", "low", "high")}
    drawn = [value for values in lines.values() for value in values if value is not None and math.isfinite(value)]
    lowest, highest = (min(drawn), max(drawn)) if drawn else (0.0, 1.0)
    room = (highest - lowest or abs(highest) or 1.0) * 0.06
    least, greatest = lowest - room, highest + room

    def x(place: int) -> float:
        return _LEFT + (_WIDTH - _LEFT) * (place + 0.5) / len(points)

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (greatest - value) / (greatest - least)

    def line(name: str, style: str) -> Iterable[Html]:
        places = [
            None if value is None or not math.isfinite(value) else (x(place), y(value))
            for place, value in enumerate(lines[name])
        ]
        return (
            element("polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in run), fill="none", class_=style)
            for run in _runs(places)
        )

    marks = [
        element("circle", cx=f"{x(place):.1f}", cy=f"{y(point.value):.1f}", r=3.2, class_="breach")
        for place, point in enumerate(points)
        if point.breached and point.value is not None
    ]
    if len(points) == 1 and points[0].value is not None and not marks:
        marks = [element("circle", cx=f"{x(0):.1f}", cy=f"{y(points[0].value):.1f}", r=2.4, class_="dot")]
    texts = [
        *(
            element("text", _short(value), x=_LEFT - 4, y=f"{y(value) + 4:.1f}", text_anchor="end")
            for value in dict.fromkeys((lowest, highest))
        ),
        element("text", f"row {number(points[0].row)}", x=_LEFT, y=_HEIGHT - 3),
        element("text", number(points[-1].row), x=_WIDTH, y=_HEIGHT - 3, text_anchor="end"),
    ]
    return element(
        "svg", *line("low", "bound"), *line("high", "bound"), *line("reference", "reference"),
        *line("value", "value"), *marks, *texts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img",
    )  # fmt: skip


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _runs(places: Sequence[tuple[float, float] | None]) -> Iterable[list[tuple[float, float]]]:
    """Stretches without a gap."""
    run: list[tuple[float, float]] = []
    for place in [*places, None]:
        if place is not None:
            run.append(place)
        elif run:
            yield run
            run = []


@dataclass(frozen=True)
class Span:
    """A window on the line of time: `style` is ok, breach or idle."""

    from_row: int
    to_row: int
    style: str


@dataclass(frozen=True)
class Mark:
    """Something that happened after so many rows: `style` is mark or taken."""

    row: int
    title: str
    style: str = "mark"


def timeline(spans: Sequence[Span], marks: Sequence[Mark]) -> Html:
    """All windows in a row, and versions above them where they were published."""
    first, last = spans[0].from_row, max(span.to_row for span in spans)

    def x(row: int) -> float:
        return _LINE_WIDTH * (row - first) / max(1, last - first)

    cells = [
        element(
            "rect",
            element("title", f"rows {number(span.from_row)} to {number(span.to_row)}: {_MEANING[span.style]}"),
            x=f"{x(span.from_row):.1f}",
            y=26,
            width=f"{max(0.6, x(span.to_row) - x(span.from_row) - 0.6):.1f}",
            height=18,
            class_=span.style,
        )
        for span in spans
    ]
    lines = [
        element(
            "g",
            element("title", mark.title),
            element("line", x1=f"{x(mark.row):.1f}", x2=f"{x(mark.row):.1f}", y1=4, y2=48, class_=mark.style),
        )
        for mark in marks
        if first <= mark.row <= last
    ]
    texts = [
        element("text", f"row {number(first)}", x=0, y=60),
        element("text", number(last), x=_LINE_WIDTH, y=60, text_anchor="end"),
    ]
    return element("svg", *cells, *lines, *texts, viewBox=f"0 0 {_LINE_WIDTH} {_LINE_HEIGHT}", role="img")


_MEANING = {"ok": "no breach", "breach": "breached", "idle": "the reference is being gathered"}
