"""The config of drift detection: its defaults, its comments, and what can be wrong with it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from drift_rows import config, label_profile
from google.protobuf import text_format

from easyrec_lite.errors import UserError
from easyrec_lite.protos import pipeline_pb2, stream_pb2
from easyrec_lite.streaming.drift import CHECKS, check, load_reference, settings

PROTO = Path(__file__).parents[2] / "protos" / "stream.proto"


def test_the_comments_of_the_schema_say_the_defaults():
    text = PROTO.read_text(encoding="utf-8")
    fields = re.findall(r"((?:  //[^\n]*\n)+)  optional DriftCheck (\w+) =", text)
    assert {name for _, name in fields} == set(CHECKS)
    for comment, name in fields:
        found = re.search(r"([\d.]+)(?: \([^)]*\))?, (WARN|HOLD|STOP)\.\n$", comment)
        assert found, comment
        assert float(found[1]) == CHECKS[name].threshold, name
        assert stream_pb2.AlarmAction.Value(found[2]) == CHECKS[name].action, name


def test_settings_are_complete():
    found = settings(config(label_mean={"threshold": 0.3, "patience": 2}, duplicates={"enabled": False}))
    assert set(found) == set(CHECKS)
    assert found["label_mean"].threshold == 0.3
    assert found["label_mean"].patience == 2
    assert found["label_mean"].action == stream_pb2.STOP
    assert found["missing_rate"].threshold == 0.02
    assert found["missing_rate"].patience == 1
    assert not found["duplicates"].enabled


def test_settings_take_an_action():
    chosen = settings(config(label_mean={"action": stream_pb2.WARN}, row_rate={"action": stream_pb2.STOP}))
    assert chosen["label_mean"].action == stream_pb2.WARN
    assert chosen["row_rate"].action == stream_pb2.STOP


@pytest.mark.parametrize(
    ("name", "value", "reference", "distance"),
    [
        ("row_rate", 30.0, 10.0, 2.0),
        ("row_rate", 5.0, 10.0, 1.0),
        ("row_rate", 0.0, 10.0, math.inf),
        ("label_mean", 0.08, 0.1, 0.2),
        ("label_mean", 0.0, 0.0, 0.0),
        ("label_mean", 0.1, 0.0, math.inf),
        ("missing_rate", 0.03, 0.05, 0.02),
        ("partition_silent", 5.0, 20.0, 0.25),
        ("partition_silent", 0.0, 0.0, 1.0),
        ("distribution", 0.3, 0.0, 0.3),
        ("calibration", 0.9, 1.0, 0.1),
        ("auc_fall", 0.7, 0.75, 0.05),
    ],
)
def test_distances(name, value, reference, distance):
    assert CHECKS[name].distance(value, reference) == pytest.approx(distance)


def problems(drift="", stream="", data="event_time_field: 't'"):
    text = f"""
        data_config {{ label_fields: "clk" {data} }}
        feature_config {{ features {{ input_names: "user_id" feature_type: IdFeature }} }}
        stream_config {{ {stream} drift {{ {drift} }} }}
    """
    message = text_format.Parse(text, pipeline_pb2.EasyRecConfig())
    message.features.extend(message.feature_config.features)
    return {problem.path: f"{problem.found}; {problem.expected}; {problem.hint}" for problem in check(message)}


@pytest.mark.parametrize(
    "drift",
    [
        "",
        "window_event_minutes: 30",
        "reference_first_windows: 100",
        "reference_half_life_windows: 24",
        "reference_statistics: 'base'",
        "label_mean { only: 'clk' threshold: 0.2 patience: 3 action: HOLD }",
        "distribution { ignore: 'user_id' }",
        "partition_silent { only: '3' }",
    ],
)
def test_configs_that_are_right(drift):
    assert problems(drift) == {}


@pytest.mark.parametrize(
    ("drift", "path", "words"),
    [
        ("window_rows: 0", "window_rows", "at least 1"),
        ("window_event_minutes: -1", "window_event_minutes", "above 0"),
        ("window_rows: 10 window_event_minutes: 1", "window_event_minutes", "one of the two"),
        ("sigmas: 0", "sigmas", "above 0"),
        ("sigmas: nan", "sigmas", "above 0"),
        ("release_windows: 0", "release_windows", "at least 1"),
        ("reference_first_windows: 1", "reference_first_windows", "at least 2"),
        ("reference_half_life_windows: 0", "reference_half_life_windows", "at least 0.5"),
        ("reference_statistics: ''", "reference_statistics", "statistics.json"),
        ("label_mean { threshold: -1 }", "label_mean.threshold", "0.1 is the default"),
        ("label_mean { patience: 0 }", "label_mean.patience", "at least 1"),
        ("label_mean { only: 'clik' }", "label_mean.only", "did you mean 'clk'"),
        ("missing_rate { ignore: 'user' }", "missing_rate.ignore", "did you mean 'user_id'"),
        ("duplicates { only: 'x' }", "duplicates.only", "one subject only"),
        ("partition_silent { only: 'x' }", "partition_silent.only", "number of a partition"),
        ("partition_silent { threshold: 1 }", "partition_silent.threshold", "share below 1"),
        ("auc_fall {}", "auc_fall", "prequential"),
        ("calibration {}", "calibration", "prequential"),
    ],
)
def test_configs_that_are_wrong(drift, path, words):
    found = problems(drift)
    assert list(found) == [f"stream_config.drift.{path}"]
    assert words in found[f"stream_config.drift.{path}"]


def test_times_are_needed():
    assert problems(data="") == {}
    assert "event_time_field" in problems("window_event_minutes: 5", data="").popitem()[1]
    assert "event_time_field" in problems("row_rate {}", data="").popitem()[1]
    assert problems("auc_fall {}", stream="prequential {}") == {}


def test_no_drift_no_problem():
    message = pipeline_pb2.EasyRecConfig()
    message.stream_config.prometheus_port = 1
    assert not list(check(message))


def test_references_are_read(tmp_path):
    profile = label_profile(0.25)
    (tmp_path / "statistics.json").write_text(profile.to_json())
    assert load_reference(str(tmp_path)) == load_reference(str(tmp_path / "statistics.json")) == profile


@pytest.mark.parametrize("text", [None, "", "[1]", '{"format": "other"}', '{"format": "easyrec_lite.profile/1"}'])
def test_references_that_can_not_be_read(tmp_path, text):
    if text is not None:
        (tmp_path / "statistics.json").write_text(text)
    with pytest.raises(UserError, match=r"reference_statistics: .*statistics\.json.*Expected"):
        load_reference(str(tmp_path))
