"""HTML for the outputs of notebooks, readable on light and dark ground."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import pandas as pd

from easyrec_lite import _html
from easyrec_lite._html import Html, element

# Notebooks, editors and reports set the colour of text to suit their ground: everything is drawn in shades of it.
_STYLE = Html(
    """<style>
.erl{font-size:13px;line-height:1.45;max-width:100%}
.erl table{border-collapse:collapse;margin:.4em 0;font-variant-numeric:tabular-nums}
.erl th,.erl td{padding:.2em .7em;text-align:left;vertical-align:top;border:0;
border-bottom:1px solid color-mix(in srgb,currentColor 18%,transparent)}
.erl th{font-weight:600;opacity:.75}
.erl td.number{text-align:right}
.erl h4{margin:.8em 0 .3em;font-size:1.05em}
.erl .dim{opacity:.65}
.erl .scroll{overflow:auto;max-height:30em}
.erl pre{white-space:pre;overflow:auto;max-height:30em;margin:.4em 0;padding:.6em .8em;background:none;color:inherit;
border:1px solid color-mix(in srgb,currentColor 18%,transparent);border-radius:6px}
.erl svg{max-width:100%;width:auto;height:auto}
.erl .bar{height:.5em;border-radius:.25em;background:color-mix(in srgb,currentColor 14%,transparent);margin:.3em 0;
max-width:40em}
.erl .bar>div{height:100%;border-radius:.25em;background:#1f9e89}
.erl .error{color:#d1495b}
.erl .warning{color:#c98a00}
</style>""".replace("\n", "")
)


@runtime_checkable
class Displayable(Protocol):
    """Something that notebooks show as HTML."""

    def _repr_html_(self) -> str: ...


def block(*parts: object) -> Html:
    """Parts as one output with its style; text is escaped."""
    return _html.join([_STYLE, element("div", *parts, class_="erl")])


def heading(text: str, note: str = "") -> Html:
    """A title."""
    return element("h4", text, " " if note else None, dim(note) if note else None)


def dim(text: object) -> Html:
    """Text that stands back."""
    return element("span", text, class_="dim")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table; numbers stand to the right, what is missing is empty."""
    return _html.table(columns, [[_plain(value) for value in row] for row in rows])


def frame_table(frame: pd.DataFrame) -> Html:
    """A frame without its index."""
    return table([str(name) for name in frame.columns], frame.itertuples(index=False, name=None))


def details(summary: str, content: Html) -> Html:
    """Content that opens on a click."""
    return element("details", element("summary", summary), content)


def page(title: str, sections: Iterable[tuple[str, Displayable]]) -> Html:
    """A whole file that needs no network: titled sections of what notebooks would show."""
    parts = [element("section", element("h2", name), Html(shown._repr_html_())) for name, shown in sections]
    return _html.page(title, *parts)


def format_cell(value: object) -> str:
    """A value for people."""
    return _html.number(_plain(value))


def _plain(value: object) -> object:
    """NumPy's numbers as Python's; what is missing as nothing."""
    if hasattr(value, "item"):
        value = value.item()
    return "" if value is None or (isinstance(value, float) and value != value) else value
