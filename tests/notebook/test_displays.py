"""What notebooks show: escaped, the same each time, drawn right."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pandas as pd
import pytest
from notebook_rows import CONFIG

import easyrec_lite as er
from easyrec_lite._notebook.charts import bar_chart, to_svg
from easyrec_lite._notebook.drawing import ordered
from easyrec_lite._notebook.flow import flow_of
from easyrec_lite._notebook.html import format_cell
from easyrec_lite._notebook.progress import Bar
from easyrec_lite._notebook.views import Comparison, Metrics, View
from easyrec_lite.models import Recommender

EVIL = "<script>alert('x')</script>&\"q\""


def clean(html: str) -> None:
    assert "<script" not in html
    assert "alert(&#x27;x&#x27;)" in html or "alert('x')&lt;" in html or "&lt;script" in html


def test_names_from_files_are_escaped() -> None:
    quoted = EVIL.replace('"', '\\"')
    text = CONFIG.replace('input_names: "noise"', f'feature_name: "{quoted}" input_names: "noise"')
    text = text.replace('"word", "noise"]', f'"word", "{quoted}"]')
    config = er.load_config(text=text, name=EVIL)
    clean(config._repr_html_())
    clean(er.explain(config)._repr_html_())
    experiment = er.Experiment(config)
    clean(experiment._repr_html_())
    clean(experiment.parameters._repr_html_())
    config["model_config.feature_groups[all].feature_names[0]"] = EVIL + "!"
    clean(config.check()._repr_html_())


def test_values_are_escaped() -> None:
    frame = pd.DataFrame({EVIL: [EVIL], "n": [1.0]})
    figure = bar_chart([EVIL], [1.0], None, EVIL)
    clean(View(EVIL, frame, figure, EVIL)._repr_html_())
    clean(to_svg(figure))
    clean(Metrics({EVIL: 1.0}, 3, EVIL)._repr_html_())
    metrics = pd.DataFrame({"metric": [EVIL], "model": [EVIL], "value": [1.0], "low": [0.5], "high": [1.5]})
    clean(Comparison(frame, metrics, EVIL)._repr_html_())


def test_bars_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("IPython.display.display", lambda html, **_: shown.append(html.data))
    bar = Bar(EVIL, 10)
    bar.lines.append(EVIL)
    bar.update(3, EVIL)
    clean(shown[0])
    assert "width:30.0%" in shown[0]


def test_charts_are_of_the_colour_of_the_text() -> None:
    svg = to_svg(bar_chart(["a", "b"], [1.0, 2.0], [0.1, 0.2], "metric"))
    ElementTree.fromstring(svg)
    assert "currentColor" in svg
    assert "#000000" not in svg.replace("#000000;stroke-opacity:0", "")
    assert svg == to_svg(bar_chart(["a", "b"], [1.0, 2.0], [0.1, 0.2], "metric"))
    other = to_svg(bar_chart(["a", "c"], [1.0, 2.0], [0.1, 0.2], "metric"))
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for text in (svg, other)]
    assert not ids[0] & ids[1]  # both may stand on one page
    assert set(re.findall(r'href="#([^"]+)"', svg)) <= ids[0]


def test_dollars_are_no_mathematics() -> None:
    assert "a_b$c" in to_svg(bar_chart(["a_b$c$"], [1.0], None, "")).replace("\\", "")


@pytest.mark.parametrize(
    ("value", "shown"), [(None, ""), (float("nan"), ""), (1234, "1,234"), (0.123456789, "0.12346"), ("a", "a")]
)
def test_cells(value: object, shown: str) -> None:
    assert format_cell(value) == shown


# ---- the flow of data


def test_flow() -> None:
    drawing = er.explain(CONFIG)
    recommender = Recommender(er.load_config(text=CONFIG).message, training=False, tables=False)
    recommender.build()
    flow = flow_of(recommender)
    assert [len(flow.layer(number)) for number in range(6)] == [6, 6, 4, 2, 1, 3]
    assert {("column seen", "feature seen"), ("feature seen", "table item"), ("table item", "group history")} <= set(
        flow.edges
    )
    assert ("table noise", "group history") not in flow.edges
    item = flow.nodes["table item"]
    assert (item.note, item.shared) == ("20 x 4", True)
    assert flow.nodes["column user"].side == "user"
    assert flow.nodes["feature seen"].side == ""
    assert flow.nodes["group all"].note == "width 16"
    text = str(drawing)
    assert re.search(r"item +20 x 4 +shared +<- item, seen", text)
    assert re.search(r"history +width 16 +<- item, word", text)
    assert "MultiTowerDIN" in text
    svg = drawing.svg[drawing.svg.index("<svg") : drawing.svg.index("</svg>") + 6]
    root = ElementTree.fromstring(svg)
    boxes = [element for element in root.iter() if element.tag.endswith("}g")]
    assert len(boxes) == len(flow.nodes)
    assert sorted(key for layer in ordered(flow) for key in layer) == sorted(flow.nodes)


def test_numbers_go_past_the_tables() -> None:
    text = CONFIG.replace(
        'features { input_names: "noise" num_buckets: 5 embedding_dim: 4 }',
        'features { input_names: "noise" feature_type: RawFeature }',
    )
    recommender = Recommender(er.load_config(text=text).message, training=False, tables=False)
    recommender.build()
    assert ("feature noise", "group all") in flow_of(recommender).edges


def test_experiments_show_what_they_are(trained: er.Experiment) -> None:
    assert repr(trained) == "Experiment 'small' (MultiTowerDIN), trained to step 60"
    html = trained._repr_html_()
    assert "to step 60" in html
    assert "easyrec_lite_" not in html  # the temporary folder is nobody's business
    assert "temporary" not in repr(trained)
    assert "auc" in repr(trained.metrics)
    with pytest.raises(KeyError, match="there are auc, gauc, logloss"):
        trained.metrics["nothing"]


def test_errors_in_notebooks_have_no_traceback() -> None:
    lines = er.UserError("what was wrong")._render_traceback_()
    assert lines == ["UserError: what was wrong"]
