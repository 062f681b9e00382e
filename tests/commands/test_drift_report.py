"""`python -m easyrec_lite.drift`: what the drift monitor saw, for people."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from easyrec_lite import _run_records
from easyrec_lite._drift_report import UNITS, bounds
from easyrec_lite.drift import main

NOW = 1_800_000_000
EVIL = "<script>alert('x')</script>&\"hist"


def _windows(count: int) -> list[dict[str, Any]]:
    """Windows of 1,000 rows; from the seventh on clicks are one and a half times as many, and a feature is missing."""
    records = []
    for number in range(count):
        drifted = number >= 6
        measured = [
            ["label_mean", "clk", 0.06 if drifted else 0.04, 0.04, 0.1, drifted],
            ["missing_rate", EVIL, 0.3 if drifted else 0.01, 0.01, 0.02, drifted],
            *(["distribution", f"feature_{i}", 0.001 * i, 0.0, 0.1, False] for i in range(9)),
            ["auc_fall", "auc", None if number == 4 else 0.7 - number / 1000, 0.7, 0.03, False],
            ["partition_silent", "0", 0.25, 0.25, 0.1, False],
        ]
        records.append(
            {
                "step": (number + 1) * 10,
                "kind": "drift",
                "window": {
                    "from_row": number * 1000,
                    "to_row": number * 1000 + 1000,
                    "event_time": [NOW + number * 60, NOW + number * 60 + 59],
                },
                "rows": 1000,
                "ready": number >= 2,
                "measurements": measured if number >= 2 else [],
            }
        )
    return records


def _alarm(step: int, action: str, check: str, subject: str, **facts: Any) -> dict[str, Any]:
    window = {"from_row": step * 100 - 1000, "to_row": step * 100, "event_time": [NOW + 360, NOW + 419]}
    return {
        "kind": "alarm",
        "id": f"{step}-{check}-{subject}",
        "time": "2027-01-15T08:07:00+00:00",
        "step": step,
        "check": check,
        "subject": subject,
        "action": action,
        "value": 0.06,
        "reference": 0.04,
        "threshold": 0.1,
        "sigmas": 9.5,
        "windows": [window],
        "contributions": [["<b>17</b>", 0.5, 0.1], ["3", 0.2, 0.2]],
        "offsets": {"0": [600, 700], "1": [61, 70]},
        "event_time": [NOW + 360, NOW + 419],
        **facts,
    }


STOP = _alarm(70, "STOP", "label_mean", "clk", restored="model/checkpoints/step-000000000060", restored_step=60)
HOLD = _alarm(70, "HOLD", "missing_rate", EVIL)


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A run that was stopped, on which nobody decided; one of two versions was taken back, and one not published."""
    model_dir = tmp_path / "model"
    (model_dir / "published" / "1001.taken_back").mkdir(parents=True)
    (model_dir / "published" / "1000").mkdir()
    dropped = {"step": 55, "kind": "publish", "rows": 5500, "checkpoint_step": 55, "dropped": "auc 0.6 is not <at> 0.7"}
    _write(model_dir / "metrics.jsonl", [*_windows(7), dropped, {"step": 70, "kind": "train", "loss": 0.1}])
    _write(model_dir / "alarms.jsonl", [HOLD, STOP])
    versions = [
        {"version": 1000 + n, "step": 30 + 10 * n, "rows": 3000 + 1000 * n, "path": f"published/{1000 + n}"}
        | {"metrics": {"auc": 0.7, "running_auc": 0.71}, "time": "2027-01-15T08:03:00+00:00"}
        for n in range(2)
    ]
    _write(model_dir / "published.jsonl", versions)
    return model_dir


def _page(model_dir: Path, *arguments: str) -> str:
    assert main([str(model_dir), *arguments]) == 0
    return (model_dir / "drift.html").read_text()


def _tree(page: str) -> ElementTree.Element:
    """The body; that it can be read shows that it is well formed."""
    return ElementTree.fromstring(page[page.index("<body>") : page.index("</html>")])


def test_what_is_on_the_page(model_dir: Path) -> None:
    page = _page(model_dir)
    tree = _tree(page)
    text = " ".join(tree.itertext())
    assert "stopped, and nobody has decided yet: label_mean clk" in text
    assert "2027-01-15 08:00:00 to 2027-01-15 08:06:59 (UTC)" in text
    assert "2 published, 1 of them there" in text
    cells = [[cell.text for cell in row] for row in tree.iter("tr")]
    assert ["restored", "model/checkpoints/step-000000000060"] in cells
    assert ["<b>17</b>", "0.5", "0.1"] in cells
    assert ["1", "61", "70"] in cells
    assert ["1001", "taken back", "40", "4,000", "-", "2027-01-15T08:03:00+00:00", "0.7"] in cells
    assert ["55", "5,500", "auc 0.6 is not <at> 0.7"] in cells
    # One chart a subject; of nine features six are shown at once.
    charts = [card for card in tree.iter("div") if card.get("class") == "charts"]
    assert [len(part.findall("div")) for part in charts] == [1, 1, 1, 6, 3, 1]
    (folded,) = [part for part in tree.iter("details") if part.find("div[@class='charts']") is not None]
    assert [card.findtext("h3") for card in folded.iter("div") if card.get("class") == "card"] == [
        "feature_2", "feature_1", "feature_0"
    ]  # fmt: skip
    assert sum(circle.get("class") == "breach" for circle in tree.iter("circle")) == 2
    styles = [box.get("class") for box in tree.iter("rect")]
    assert styles == ["idle"] * 2 + ["ok"] * 4 + ["breach"]
    assert [line.get("class") for line in tree.iter("line")] == ["mark", "taken"]


def test_what_a_stream_wrote_is_text(model_dir: Path) -> None:
    page = _page(model_dir)
    assert "<script" not in page
    assert "alert(" in page  # it is shown, escaped
    assert EVIL in "".join(_tree(page).itertext())
    assert "<b>" not in page


def test_it_needs_no_network(model_dir: Path) -> None:
    assert not re.search(r"https?:|src=|href=|@import|url\(", _page(model_dir))


def test_the_same_records_make_the_same_page(model_dir: Path) -> None:
    assert _page(model_dir) == _page(model_dir)


def test_a_chart(model_dir: Path) -> None:
    """Values, reference and both bounds of the label's mean, over five windows."""
    tree = _tree(_page(model_dir))
    (card,) = [card for card in tree.iter("div") if card.get("class") == "card" and card.findtext("h3") == "clk"]
    lines = {line.get("class"): (line.get("points") or "").split() for line in card.iter("polyline")}
    assert sorted(line.get("class") or "" for line in card.iter("polyline")) == ["bound", "bound", "reference", "value"]
    assert [point.split(",")[0] for point in lines["value"]] == ["78.6", "127.8", "177.0", "226.2", "275.4"]
    heights = [float(point.split(",")[1]) for point in lines["value"]]
    # From 0.036 to 0.06, with 6 % of that to spare on either side; 76 units are that high.
    step = 76 / (0.024 * 1.12)
    assert heights == pytest.approx([10 + step * (0.06 + 0.06 * 0.024 - v) for v in (0.04,) * 4 + (0.06,)], abs=0.06)
    # A window without a value leaves a gap.
    (auc,) = [card for card in tree.iter("div") if card.get("class") == "card" and card.findtext("h3") == "auc"]
    gaps = [(line.get("points") or "").split() for line in auc.iter("polyline") if line.get("class") == "value"]
    assert [len(part) for part in gaps] == [2, 2]


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ("row_rate", (20.0, 80.0)),
        ("partition_silent", (40.0, None)),
        ("label_mean", (0.0, 80.0)),
        ("missing_rate", (39.0, 41.0)),
        ("unseen_rate", (None, 41.0)),
        ("distribution", (None, 41.0)),
        ("calibration", (0.0, 80.0)),
        ("auc_fall", (39.0, None)),
    ],
)
def test_bounds(check: str, expected: tuple[float | None, float | None]) -> None:
    assert bounds(check, 40.0, 1.0) == expected


def test_the_newest_windows_only(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = _tree(_page(model_dir, "--windows", "3"))
    assert len(list(tree.iter("rect"))) == 3
    assert re.search(r"windows drawn +the newest 3", capsys.readouterr().out)


def test_terminal(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "reports" / "today.html"
    assert main([str(model_dir), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert not (model_dir / "drift.html").exists()
    lines = [re.split(r"  +", line.strip()) for line in text.splitlines()]
    assert ["state", "stopped, and nobody has decided yet: label_mean clk"] in lines
    assert ["alarms", "1 HOLD, 1 STOP"] in lines
    assert ["label_mean", "1", "1", "clk", "0.06", "0.04", "7,000"] in lines
    assert ["distribution", "9", "0", "feature_8", "0.008", "0", "3,000"] in lines
    assert ["70", "6,000 to 7,000", "STOP", "label_mean", "clk", "0.06", "0.04", "0.1", "60"] in lines
    assert text.splitlines()[-1] == f"The report is in {out}"


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "no alarm holds"),
        ([HOLD], "training goes on, nothing is published: missing_rate"),
        ([HOLD, {"kind": "release", "step": 90, "check": "missing_rate", "subject": EVIL}], "no alarm holds"),
        ([STOP], "stopped, and nobody has decided yet"),
        ([STOP, {"kind": "decision", "decision": "skip", "step": 61}], "no alarm holds"),
        ([HOLD, {"kind": "decision", "decision": "replay", "step": 40}], "no alarm holds"),  # its rows were taken back
        ([HOLD, STOP, {"kind": "decision", "decision": "skip", "step": 75}], "training goes on, nothing is published"),
        (
            [HOLD, STOP, {"kind": "decision", "decision": "accept", "step": 75, "keys": [["missing_rate", EVIL]]}],
            "no alarm holds",
        ),
    ],
)
def test_state(model_dir: Path, events: list[dict[str, Any]], state: str) -> None:
    _write(model_dir / "alarms.jsonl", events)
    (line,) = [part for part in _tree(_page(model_dir)).iter("p") if (part.get("class") or "").startswith("state")]
    assert (line.text or "").startswith(state)


def test_records_of_another_form(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is in the files, the report is made of what can be read."""
    with (model_dir / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 80, "kind": "drift"}\n{"step": "x", "kind": "drift", "window": 3, "measurements": [3, []]}\n'
        )
        file.write('no json\n{"step": 90, "kind": "dr')
    with (model_dir / "alarms.jsonl").open("a") as file:
        file.write('{"kind": "alarm"}\n{"kind": "decision"}\n')
    _tree(_page(model_dir))
    assert "found 1 of 12 lines that are no JSON objects" in capsys.readouterr().err


def test_nothing_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "kind": "train", "loss": 0.1}\n')
    assert main([str(tmp_path)]) == 2
    assert "found no window of a drift monitor in metrics.jsonl" in capsys.readouterr().err
    assert main([str(tmp_path / "elsewhere")]) == 2
    assert "found no such directory" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_times_that_no_calendar_has() -> None:
    assert _run_records.when(1.7e9) == "2023-11-14 22:13:20"
    assert _run_records.when(1_700_001_000_000) == "1700001000000"  # milliseconds, in what earlier versions wrote
    assert _run_records.when(1e300 * 1e10) == "inf"


def test_names_that_others_give() -> None:
    """The report loads neither TensorFlow nor those who write what it reads."""
    from easyrec_lite.streaming import publishing
    from easyrec_lite.streaming.alarms import ALARMS_FILE
    from easyrec_lite.streaming.drift.checks import CHECKS

    assert {name: check.unit for name, check in CHECKS.items()} == UNITS
    assert _run_records.ALARMS_FILE == ALARMS_FILE
    assert _run_records.PUBLISHED_FILE == publishing.PUBLISHED_FILE
    code = "import sys, easyrec_lite.drift; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
