"""Importance and neighbours of a model whose only informative column is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from notebook_rows import make_rows

import easyrec_lite as er
from easyrec_lite._insight.importance import column_units, feature_units
from easyrec_lite._insight.neighbours import encode_values, read_table
from easyrec_lite._notebook.views import View


def test_scores_give_the_metrics_of_an_evaluation(trained: er.Experiment) -> None:
    evaluated, scored = trained.evaluate(), trained.score().metrics()
    assert scored.keys() == evaluated.values.keys()
    for name, value in scored.items():
        assert value == pytest.approx(evaluated[name], abs=1e-6), name


def test_predictions_are_those_of_the_scores(trained: er.Experiment, later: pd.DataFrame) -> None:
    predicted = trained.predict(later.drop(columns="click"))
    np.testing.assert_allclose(predicted["probs"], trained.score(later).predictions["probs"], atol=1e-6)


def test_columns_of_one_history_are_shuffled_together(trained: er.Experiment) -> None:
    names = [unit.name for unit in column_units(trained.model)]
    assert names == ["user", "item", "word", "noise", "seen + seen_word"]
    assert [unit.members for unit in feature_units(trained.model)][-1] == ("seen", "seen_word")


@pytest.mark.parametrize("by", ["column", "feature"])
def test_permutation_finds_what_the_labels_depend_on(trained: er.Experiment, by: str) -> None:
    frame = trained.importance(by=by, repeats=3).frame
    drops = frame.set_index("input")["drop"]
    assert frame["input"][0] == "item"
    assert drops["item"] > 0.2
    assert drops.drop("item").abs().max() < 0.05
    assert frame["std"].notna().all()


def test_permutation_of_one_column_is_the_metric_of_shuffled_rows(trained: er.Experiment, later: pd.DataFrame) -> None:
    """The same number as shuffling the column of the frame by hand."""
    import zlib

    frame = trained.importance(only=["item"], repeats=1, seed=4).frame
    places = np.random.default_rng([4, zlib.crc32(b"item"), 0]).permutation(len(later))
    shuffled = later.assign(item=later["item"].to_numpy()[places])
    assert frame["metric"][0] == pytest.approx(trained.evaluate(shuffled)["auc"], abs=1e-6)
    assert frame["drop"][0] == pytest.approx(trained.evaluate()["auc"] - frame["metric"][0], abs=1e-6)


def test_losses_fall_where_metrics_rise(trained: er.Experiment) -> None:
    """An input that helps has a positive drop, whichever way the metric counts."""
    frame = trained.importance(only=["item"], metric="logloss", repeats=1).frame
    assert frame["drop"][0] > 0.05
    assert frame["metric"][0] > trained.evaluate()["logloss"]


def test_dropout_keeps_what_the_labels_depend_on(trained: er.Experiment) -> None:
    rows = make_rows(8000, seed=3)  # of 800 the words, too, say something about the labels, by chance
    frame = trained.importance(rows, method="dropout", steps=120, cost=1e-3).frame.set_index("feature")
    assert frame["kept"]["item"] > 0.8
    assert frame["kept"]["noise"] < 0.2
    assert frame["kept"]["word"] < 0.3
    assert set(frame.index) == {"user", "item", "word", "noise", "seen", "seen_word"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "aux"}, "'aux'"),
        ({"only": ["itme"]}, "did you mean 'item'"),
        ({"by": "row"}, "'column' or 'feature'"),
        ({"repeats": 0}, "repeats"),
        ({"method": "shap"}, "'shap'"),
        ({"steps": 3}, "steps"),
    ],
)
def test_importance_refuses(trained: er.Experiment, options: dict[str, object], message: str) -> None:
    with pytest.raises(er.UserError, match=message):
        trained.importance(**options)  # type: ignore[arg-type]


# ---- neighbours


def test_neighbours_by_brute_force(trained: er.Experiment) -> None:
    frame = trained.neighbours("item", 3, k=19).frame
    table = read_table(trained.model, "item").astype(np.float64)
    cosines = {
        place: table[place] @ table[3] / np.linalg.norm(table[place]) / np.linalg.norm(table[3])
        for place in range(20)
        if place != 3
    }
    expected = sorted(cosines, key=lambda place: -cosines[place])
    assert frame["id"].tolist() == expected
    np.testing.assert_allclose(frame["cosine"], [cosines[place] for place in expected], atol=1e-12)
    assert set(frame["value"][:5].astype(int)) <= set(range(10))  # items that are clicked alike are near


def test_neighbours_count_the_values_of_the_data(trained: er.Experiment, later: pd.DataFrame) -> None:
    frame = trained.neighbours("item", 3, k=1).frame
    assert frame["count"][0] == (later["item"] == int(frame["value"][0])).sum()


def test_hashed_values_come_from_the_data(trained: er.Experiment) -> None:
    frame = trained.neighbours("word", "w1", k=50).frame
    assert set(frame["value"]) == {f"w{number}" for number in range(7)} - {"w1"}
    ids = encode_values(trained.model.features["word"], frame["value"].tolist())
    assert ids.tolist() == frame["id"].tolist()
    of_sequence = trained.neighbours("seen_word", "w1", k=50).frame
    np.testing.assert_allclose(of_sequence["cosine"], frame["cosine"])


def test_neighbours_among_given_values(trained: er.Experiment) -> None:
    assert set(trained.neighbours("item", 3, among=[1, 2, 3]).frame["value"]) == {"1", "2"}


def test_private_values_are_not_looked_up(trained: er.Experiment, later: pd.DataFrame) -> None:
    with pytest.raises(er.UserError, match="'user' is private"):
        trained.neighbours("user", 1)
    assert len(trained.neighbours("user", 1, among=later).frame) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("itm", 1), "did you mean 'item'"), (("item", ""), "has no row"), (("seen", "1|2"), "several ids")],
)
def test_neighbours_refuse(trained: er.Experiment, arguments: tuple[str, object], message: str) -> None:
    with pytest.raises(er.UserError, match=message):
        trained.neighbours(*arguments)


# ---- comparison


def test_an_experiment_with_another_seed(trained: er.Experiment, rows: pd.DataFrame, later: pd.DataFrame) -> None:
    other = er.Experiment(trained.config, name="small")
    other.config["train_config.num_steps"] = 5
    other.train(rows, later, progress=False)
    result = er.compare([trained, other], samples=100)
    assert result.config.to_dict("records") == [{"path": "train_config.num_steps", "small": "60", "small (2)": "5"}]
    table = result.metrics.set_index(["metric", "model"])
    for metric in ("auc", "gauc", "logloss"):
        assert table["value"][metric, "small"] == pytest.approx(trained.evaluate()[metric], abs=1e-6)
        assert table["low"][metric, "small"] < table["value"][metric, "small"] < table["high"][metric, "small"]
    assert table["verdict"]["logloss", "small (2)"] == "worse"
    by_user = er.compare([trained, other], by="user", samples=100).metrics.set_index(["metric", "model"])
    assert by_user["low"]["auc", "small"] != table["low"]["auc", "small"]
    with pytest.raises(er.UserError, match="at least one"):
        er.compare([])


@pytest.mark.parametrize("look", ["learning_curves", "calibration", "score_distribution"])
def test_views_have_numbers_and_charts(trained: er.Experiment, look: str) -> None:
    view = getattr(trained, look)()
    assert isinstance(view, View)
    assert len(view.frame) > 2
    html = view._repr_html_()
    assert "<svg" in html
    assert "currentColor" in html
    assert html == getattr(trained, look)()._repr_html_()  # nothing random, no clock


def test_learning_curves_have_evaluations(trained: er.Experiment) -> None:
    history = trained.history
    evaluations = history[history["kind"] == "evaluation"]
    assert evaluations["step"].tolist() == [30, 60]
    assert evaluations["auc"].iloc[-1] == pytest.approx(trained.metrics["auc"])
    assert history[history["kind"] == "train"]["step"].tolist() == [10, 20, 30, 40, 50, 60]
