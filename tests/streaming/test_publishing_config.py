"""What can be wrong with `stream_config.publish`."""

from __future__ import annotations

import pytest
from tiny import MODELS, load

from easyrec_lite.streaming.conditions import check

PATH = "stream_config.publish"
EVERY = f"{PATH}.every_rows=1000"
SCORED = "stream_config.prequential={}"


def problems(*edits: str, model: str = "multi_tower") -> list[str]:
    return [str(problem) for problem in check(load(MODELS[model], *edits).message)]


def condition(text: str) -> str:
    return f"{PATH}.conditions=[{{{text}}}]"


@pytest.mark.parametrize(
    "edits",
    [
        (),
        (EVERY,),
        (f"{PATH}.every_seconds=60", f"{PATH}.keep=0"),
        (f"{PATH}.every_event_minutes=5", "data_config.event_time_field=price"),
        (f"{PATH}.every_event_minutes=5", 'kafka_train_input={server: "a:1" topic: "t" group: "g"}'),
        (EVERY, SCORED, condition('metric: "running_auc" at_least: 0.6')),
        (EVERY, SCORED, condition('metric: "calibration" at_least: 0.8 at_most: 1.2 worse_by_at_most: 0.1')),
    ],
)
def test_good_ones(edits: tuple[str, ...]) -> None:
    assert problems(*edits) == []


def test_names_of_several_tasks() -> None:
    edits = [EVERY, SCORED]
    assert problems(*edits, condition('metric: "auc_buy" at_least: 0.6'), model="dbmtl") == []
    (found,) = problems(*edits, condition('metric: "auc" at_least: 0.6'), model="dbmtl")
    assert found.startswith(
        f"{PATH}.conditions[0].metric: found the unknown metric 'auc', expected one of auc_buy, auc_click"
    )


def test_no_period() -> None:
    assert problems(f"{PATH}.keep=3") == [
        f"{PATH}: found no period, expected every_rows, every_seconds or every_event_minutes above 0"
        " (leave publish out to publish nothing)"
    ]


def test_bad_ones_all_at_once() -> None:
    bad = (
        '{metric: "auc"}, {metric: "auk" at_least: 0.6}, {metric: "running_gauc" at_most: 1},'
        '{metric: "calibration" at_least: 1.1 at_most: 0.9}'
    )
    edits = [f"{PATH}.every_event_minutes=-1", SCORED, f"{PATH}.conditions=[{bad}]"]
    found = problems(*edits, 'eval_config.metrics_set=[{gauc {uid_field: "user"}}]')
    assert [problem.partition(": ")[0].removeprefix(f"{PATH}.") for problem in found] == [
        "every_event_minutes",
        "every_event_minutes",
        "conditions[0]",
        "conditions[1].metric",
        "conditions[2].metric",
        "conditions[3]",
    ]
    assert found[2].endswith("found no bound, expected at_least, at_most or worse_by_at_most")
    assert "did you mean 'auc'?" in found[3]
    assert found[5].endswith("found at_least 1.1, at_most 0.9, expected at_least below at_most: no value meets both")


def test_conditions_need_prequential_evaluation() -> None:
    assert problems(EVERY, condition('metric: "auc" at_least: 0.6')) == [
        f"{PATH}.conditions[0]: found a condition, and no prequential evaluation,"
        " expected stream_config.prequential: conditions are on its metrics"
    ]
