"""A layered drawing of a data flow as SVG."""

from __future__ import annotations

import os
from html import escape

from easyrec_lite import _runs
from easyrec_lite._notebook.configs import Config, as_config
from easyrec_lite._notebook.flow import LAYERS, Flow, Node, flow_of
from easyrec_lite._notebook.views import Drawing
from easyrec_lite.models import Recommender

_WIDTHS = (120, 235, 200, 150, 200, 180)
_GAP = 56
_ROW, _HEIGHT = 27, 21
_TOP = 30
_CHARACTER = 6.1  # of the font's size 11, on average
_SWEEPS = 6
_SIDES = {"user": "#1f9e89", "item": "#c98a00", "both": "#9467bd", "": "#8c8c8c"}

_STYLE = """
.erl-flow text{font:11px system-ui,sans-serif;fill:currentColor}
.erl-flow .note{opacity:.6;font-size:10px}
.erl-flow .head{font-weight:600;opacity:.75}
.erl-flow path{fill:none;stroke:currentColor;stroke-opacity:.22;stroke-width:1}
.erl-flow g:hover rect{stroke-width:2.5}
"""


def explain(config: Config | str | os.PathLike[str]) -> Drawing:
    """Draws the data flow of a config: columns, features, tables, groups, model, predictions and losses.

    Raises:
        ConfigError: the config is not usable.
    """
    pipeline = as_config(config).checked()
    with _runs.late_errors(pipeline):
        recommender = Recommender(pipeline.message, training=False, tables=False)
        recommender.build()
    graph = flow_of(recommender)
    return Drawing(f"Data flow of {graph.name}", draw(graph), graph.to_text())


def draw(flow: Flow) -> str:
    """The SVG element; names are escaped."""
    layers = ordered(flow)
    rows = max(len(layer) for layer in layers)
    height = _TOP + _ROW * rows + 34
    lefts = [sum(_WIDTHS[:place]) + _GAP * place for place in range(len(_WIDTHS))]
    places: dict[str, tuple[float, float]] = {}
    for layer, left in zip(layers, lefts, strict=True):
        top = _TOP + _ROW * (rows - len(layer)) / 2
        places.update({key: (left, top + _ROW * row) for row, key in enumerate(layer)})
    heads = "".join(
        f'<text class="head" x="{left}" y="16">{escape(name)}</text>' for name, left in zip(LAYERS, lefts, strict=True)
    )
    edges = "".join(_edge(flow, start, end, places) for start, end in flow.edges)
    boxes = "".join(_box(flow.nodes[key], *place) for key, place in places.items())
    width = lefts[-1] + _WIDTHS[-1]
    return (
        f'<div style="overflow-x:auto"><svg class="erl-flow" viewBox="0 0 {width} {height}" role="img" '
        f'style="min-width:{width * 0.7:.0f}px;width:{width}px" xmlns="http://www.w3.org/2000/svg">'
        f"<title>Data flow of {escape(flow.name)}</title><style>{_STYLE}</style>"
        f"{heads}{edges}{boxes}{_legend(height - 12)}</svg></div>"
    )


def ordered(flow: Flow) -> list[list[str]]:
    """Keys by layer, in an order with few crossings: each near the mean of its neighbours (Sugiyama et al., 1981)."""
    layers = [[node.key for node in flow.layer(number)] for number in range(len(LAYERS))]
    neighbours: dict[str, list[str]] = {key: [] for key in flow.nodes}
    for start, end in flow.edges:
        neighbours[start].append(end)
        neighbours[end].append(start)
    for sweep in range(_SWEEPS):
        # The groups and what follows keep the order of the config; the left side follows them, and they it.
        forward = range(1, 4) if sweep % 2 else range(3, -1, -1)
        for number in forward:
            place = {key: row / max(len(layer), 1) for layer in layers for row, key in enumerate(layer)}
            left = sweep % 2 == 1

            def centre(key: str, number: int = number, left: bool = left, place: dict[str, float] = place) -> float:
                beside = [
                    place[other]
                    for other in neighbours[key]
                    if (flow.nodes[other].layer < number) == left and flow.nodes[other].layer != number
                ]
                return sum(beside) / len(beside) if beside else place[key]

            layers[number].sort(key=centre)
    return layers


def _edge(flow: Flow, start: str, end: str, places: dict[str, tuple[float, float]]) -> str:
    left = places[start][0] + _WIDTHS[flow.nodes[start].layer]
    right = places[end][0]
    from_y, to_y = places[start][1] + _HEIGHT / 2, places[end][1] + _HEIGHT / 2
    middle = (left + right) / 2
    curve = f"C{middle:.1f} {from_y:.1f} {middle:.1f} {to_y:.1f} {right} {to_y:.1f}"
    return f'<path d="M{left} {from_y:.1f}{curve}"/>'


def _box(node: Node, x: float, y: float) -> str:
    width = _WIDTHS[node.layer]
    color = _SIDES[node.side] if node.layer < 2 else "#4c78c8" if node.shared else _SIDES[""]
    room = int((width - 12) / _CHARACTER)
    title = _shorten(node.title, max(room - len(node.note) - 1, 8))
    facts = [node.title, node.note, node.side, "shared" if node.shared else "", node.more]
    tip = escape("\n".join(fact for fact in facts if fact))
    note = f'<text class="note" x="{x + width - 6}" y="{y + 14.5:.1f}" text-anchor="end">{escape(node.note)}</text>'
    return (
        f'<g><title>{tip}</title><rect x="{x}" y="{y:.1f}" width="{width}" height="{_HEIGHT}" rx="5" fill="{color}" '
        f'fill-opacity=".14" stroke="{color}" stroke-width="{2 if node.shared else 1}"/>'
        f'<text x="{x + 6}" y="{y + 14.5:.1f}">{escape(title)}</text>{note if node.note else ""}</g>'
    )


def _legend(y: float) -> str:
    parts = []
    for place, (side, color) in enumerate([*_SIDES.items(), ("shared table", "#4c78c8")]):
        x = place * 120
        parts.append(
            f'<rect x="{x}" y="{y - 9}" width="10" height="10" rx="2" fill="{color}" fill-opacity=".5"/>'
            f'<text x="{x + 15}" y="{y}">{escape(side or "side not said")}</text>'
        )
    return "".join(parts)


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
