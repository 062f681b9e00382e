import json

import pytest

from tools.bench import _common, _first_step, startup
from tools.bench._common import BenchError, Spread


def test_marks_count_from_one_to_the_next():
    marks = _first_step.Marks(100.0)
    marks("a", 101.5)
    marks("b", 102.0)
    marks("a", 105.0)
    assert marks.seconds == {"a": 4.5, "b": 0.5}


def test_marks_around_a_function(monkeypatch):
    class Owner:
        @staticmethod
        def double(x):
            return 2 * x

    now = iter([10.0, 11.0, 14.0])
    monkeypatch.setattr(_first_step.time, "time", lambda: next(now))
    marks = _first_step.Marks(9.0)
    marks("first")
    marks.around(Owner, "double", "before", "inside")
    assert Owner.double(4) == 8
    assert marks.seconds == {"first": 1.0, "before": 1.0, "inside": 3.0}


def test_the_multiple_is_taken_within_each_round():
    runs = [(8.0, {"x": 1.0, "y": 7.0}), (9.0, {"x": 3.0, "y": 6.0}), (30.0, {"x": 2.0, "y": 28.0})]
    start = startup.start_of("din", [2.0, 3.0, 5.0], runs)
    assert start.seconds.median == 9.0
    assert start.times == Spread.of([4.0, 3.0, 6.0])
    assert start.parts == {"x": 2.0, "y": 7.0}
    assert start.reached
    assert not startup.start_of("din", [1.0], [(4.1, {})]).reached


def test_a_process_is_timed_until_its_line_of_json():
    code = "import time; print('noise'); print('{\"part\": 1.5}', flush=True); time.sleep(60)"
    seconds, found = startup.until_line(["-c", code])
    assert 0 < seconds < 30
    assert found == {"part": 1.5}
    with pytest.raises(BenchError, match="no luck"):
        startup.until_line(["-c", "raise SystemExit('no luck')"])


def test_import_seconds_are_added_up_by_package():
    report = """import time: self [us] | cumulative | imported package
import time:      1500 |       2000 |   numpy.core
import time:       500 |        500 | numpy
import time:   1000000 |    1000000 |     easyrec_lite.inputs.dataset
import time:    500000 |    9000000 |   easyrec_lite.inputs
"""
    expected = [("easyrec_lite.inputs", pytest.approx(1.5)), ("numpy", pytest.approx(0.002))]
    assert startup.import_seconds(report) == expected


def test_tables_show_all(capsys):
    starts = [startup.start_of("din", [2.0], [(9.0, {"config": 0.25})]), startup.start_of("dssm", [2.0], [(7.0, {})])]
    startup.show(Spread.of([2.0]), starts)
    shown = capsys.readouterr().out
    for text in ("4.50 (4.50 .. 4.50)", "NO", "yes", "config", "0.25"):
        assert text in shown


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    path = tmp_path / "startup.json"
    code = startup.main(["--models", "deepfm", "--rounds", "1", "--imports", "--json", str(path)])
    results = json.loads(path.read_text())["results"]
    [start] = results["models"]
    assert code == (0 if start["reached"] else 1)
    assert results["imports"]["tensorflow"] > 0
    assert sum(start["parts"].values()) == pytest.approx(start["seconds"]["median"], abs=0.5)
    assert start["parts"].keys() >= {"import tensorflow", "trace the step", "input pipeline"}
    assert "deepfm" in capsys.readouterr().out


def test_the_sample_configs_are_there():
    assert all((_common.SAMPLES / f"{model}_taobao.config").exists() for model in startup.MODELS)
