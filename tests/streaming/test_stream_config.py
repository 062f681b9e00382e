"""What `stream_config` asks for, and what can be wrong with it."""

from __future__ import annotations

import pytest
from scored_rows import recommender
from tiny import MODELS, load

from easyrec_lite.streaming import check, stream_callbacks

KAFKA = 'kafka_train_input={server: "a:1" topic: "t" group: "g"}'
MINUTES = "stream_config.prequential.window_event_minutes=5"


def problems(*edits: str) -> list[str]:
    return [str(problem) for problem in check(load(MODELS["multi_tower"], *edits).message)]


@pytest.mark.parametrize(
    "edits",
    [
        (),
        ("stream_config.prequential={}",),
        ("stream_config.prequential.window_rows=1", "stream_config.prometheus_port=65535"),
        (MINUTES, KAFKA),
        (MINUTES, "data_config.event_time_field=price"),
    ],
)
def test_good_ones(edits: tuple[str, ...]) -> None:
    assert problems(*edits) == []


def test_bad_ones_all_at_once() -> None:
    found = problems(
        "stream_config.prometheus_port=70000",
        "stream_config.prequential.every_n_batches=0",
        "stream_config.prequential.window_rows=0",
        "stream_config.prequential.half_life_rows=0",
        "stream_config.prequential.window_event_minutes=-2",
    )
    path = "stream_config.prequential"
    assert found == [
        "stream_config.prometheus_port: found 70000, expected a port up to 65535, or 0 for none",
        f"{path}.every_n_batches: found 0, expected at least 1 (leave prequential out for no prequential evaluation)",
        f"{path}.window_rows: found 0, expected at least 1",
        f"{path}.half_life_rows: found 0, expected at least 1",
        f"{path}.window_event_minutes: found -2, expected minutes above 0 (leave it out for windows of window_rows)",
        f"{path}.window_event_minutes: found -2, with window_rows 0,"
        " expected one of the two: a window is of rows or of event time",
        f"{path}.window_event_minutes: found -2, and rows without an event time, expected data_config.event_time_field"
        " (name the column of the time, or use window_rows)",
    ]


def test_callbacks() -> None:
    plain = stream_callbacks(load(MODELS["multi_tower"]).message, recommender(MODELS["multi_tower"]))
    assert (plain.prequential, plain.exporter, list(plain)) == (None, None, [plain.monitor])
    edits = ["stream_config.prequential={}", "stream_config.prometheus_port=9"]
    message = load(MODELS["multi_tower"], *edits).message
    full = stream_callbacks(message, recommender(MODELS["multi_tower"]))
    assert list(full) == [full.prequential, full.monitor, full.exporter]
    assert full.exporter is not None
    assert full.exporter.port == 9
