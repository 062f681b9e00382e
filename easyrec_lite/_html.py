"""HTML whose text is escaped by construction: names and values of a stream are written by anybody."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any


class Html(str):
    """Text that is HTML already; `element` escapes every other."""

    __slots__ = ()


def element(name: str, *content: object, **attributes: object) -> Html:
    """An element, such as `element("td", 3, class_="number")`.

    Args:
        name: of the element.
        content: what is in it, one after the other; None is left out.
        attributes: a last underscore is dropped and others become hyphens; those that are None are left out.
    """
    head = name
    for key, value in attributes.items():
        if value is not None:
            head += f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
    return Html(f"<{head}>{join(content)}</{name}>")


def join(content: Iterable[object], separator: str = "") -> Html:
    """Pieces one after the other; text is escaped."""
    pieces = (piece if isinstance(piece, Html) else html.escape(str(piece)) for piece in content if piece is not None)
    return Html(separator.join(pieces))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Html:
    """A table; numbers stand to the right."""
    head = element("tr", *(element("th", column) for column in columns))
    lines = [element("tr", *(_cell(value) for value in row)) for row in rows]
    body = element("table", element("thead", head), element("tbody", *lines))
    return element("div", body, class_="scroll")


def number(value: object) -> str:
    """A value for people: whole numbers with commas, others to five digits, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _cell(value: object) -> Html:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    shown = value if isinstance(value, Html) else number(value)
    return element("td", shown, class_="number" if is_number else None)


def page(title: str, *content: object) -> Html:
    """A page that needs nothing from elsewhere."""
    head = element("head", Html('<meta charset="utf-8">'), Html(_VIEWPORT), element("title", title), Html(_STYLE))
    body = element("body", element("main", element("h1", title), *content))
    return Html(f'<!DOCTYPE html>\n<html lang="en">{head}{body}</html>\n')


_VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1">'
_STYLE = """<style>
:root { color-scheme: light dark; --ink: #1c2430; --soft: #667085; --line: #d5dae1; --page: #fbfcfd; --card: #ffffff;
  --value: #2563a8; --bound: #b7791f; --bad: #c0392b; --good: #2e8b57; --idle: #c3cad4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --soft: #98a2b3; --line: #39424e; --page: #14181d;
  --card: #1c222a; --value: #7fb2ea; --bound: #e0b35c; --bad: #ff7b6b; --good: #5fc58c; --idle: #4a5462; } }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 1.5em; overflow-wrap: anywhere; } h2 { font-size: 1.2em; margin-top: 2em; }
h3 { font-size: 1em; margin: 0 0 .3em; overflow-wrap: anywhere; }
p.note, .soft { color: var(--soft); } .bad { color: var(--bad); } .good { color: var(--good); }
.state { font-weight: 600; }
table { border-collapse: collapse; font-size: .92em; } th { text-align: left; color: var(--soft); font-weight: 500; }
th, td { padding: 3px 14px 3px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td { overflow-wrap: anywhere; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 12px; margin: 10px 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; }
.alarm { margin: 12px 0; } .alarm table { margin: 6px 0; }
details { margin: 8px 0; } summary { cursor: pointer; color: var(--soft); }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11px; }
.value { fill: none; stroke: var(--value); stroke-width: 1.6; } .dot { fill: var(--value); }
.reference { fill: none; stroke: var(--soft); stroke-dasharray: 4 3; }
.bound { fill: none; stroke: var(--bound); stroke-width: 1.2; }
.breach { fill: var(--bad); } .ok { fill: var(--good); } .idle { fill: var(--idle); }
.mark { stroke: var(--value); stroke-width: 1.5; } .taken { stroke: var(--bad); stroke-dasharray: 3 2; }
</style>"""
