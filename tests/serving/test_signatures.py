"""Every signature of every model predicts what the trainer predicts, loaded by TensorFlow's C++ loader."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from exports import SIDES, TEXTS, Exported, assert_same, columns_of, make, request_rows, served, trained_predictions

from easyrec_lite.serving import LoadedModel, LoadError, ParityError, RequestError
from easyrec_lite.serving import export as export_module

Get = Callable[..., Exported]


@pytest.fixture(scope="module")
def session(exported: Get) -> Iterator[Callable[[str], LoadedModel]]:
    """The export of a model, loaded."""
    made: dict[str, LoadedModel] = {}

    def get(model: str) -> LoadedModel:
        if model not in made:
            made[model] = LoadedModel(exported(model, *SIDES).path)
        return made[model]

    yield get
    for one in made.values():
        one.close()


def inputs_of(export: Exported, rows: int = 40) -> dict[str, np.ndarray]:
    columns = served(columns_of(export.recommender, request_rows(rows)))
    return {name: column.numpy() for name, column in columns.items()}


def for_user(export: Exported, inputs: dict[str, np.ndarray], user: int) -> dict[str, np.ndarray]:
    """The user's columns of one row, the items of all."""
    own = export.recommender.user_columns
    return {name: values[[user]] if name in own else values for name, values in inputs.items()}


def unsplit(export: Exported, user: int, rows: int = 40) -> dict[str, np.ndarray]:
    """What the trainer predicts where the user stands in every row."""
    frame = request_rows(rows)
    for name in export.recommender.user_columns.intersection(frame):
        frame[name] = [frame[name][user]] * len(frame)
    return trained_predictions(export.recommender, frame)


@pytest.mark.parametrize(
    ("model", "lists"),
    # Columns of lists are read alike for all models.
    [*((model, False) for model in TEXTS), ("multi_tower", True), ("din", True), ("cross", True)],
)
def test_every_model_by_every_signature(exported: Get, model: str, lists: bool) -> None:
    export = exported(model, *SIDES, lists=lists)
    report = json.loads((export.path / "assets" / "parity.json").read_text())
    assert report["passed"]
    assert report["rows"] == 60
    assert report["requests"] > 40
    assert report["tolerance"] == 1e-5
    two_towers = {"user_embedding", "item_embedding"} if model.startswith("dssm") else set()
    ways = {difference["way"] for difference in report["differences"]}
    whole = {"serving_default, N users", "serving_default, one user", "serving_tiled"}
    assert ways == {*whole, "user, score", *two_towers}
    assert all(difference["values"] >= 60 and difference["excess"] < 0.2 for difference in report["differences"])
    signatures = json.loads((export.path / "assets" / "description.json").read_text())["signatures"]
    assert set(signatures) == {"serving_default", "serving_tiled", "user", "score", *two_towers}


def test_outputs_have_a_row_an_item(exported: Get, session: Callable[[str], LoadedModel]) -> None:
    export = exported("dssm", *SIDES)
    one = for_user(export, inputs_of(export), 3)
    whole = session("dssm")("serving_default", one)
    assert_same(whole, unsplit(export, 3), 1e-5)
    assert whole["user_tower_emb"].shape == (40, 3)
    assert whole["user_emb"].shape == (40,)
    scores = session("dssm")("score", {**session("dssm")("user", one), **one})
    # What is the user's alone is asked for by `user_embedding`.
    assert set(scores) == {"item_tower_emb", "logits", "probs"}
    vectors = session("dssm")("user_embedding", inputs_of(export))
    assert set(vectors) == {"user_tower_emb"}
    assert set(session("dssm").signatures["user_embedding"].inputs) == {"user", "gender", "seen"}
    assert set(session("dssm").signatures["item_embedding"].inputs) == {"item", "price"}


@pytest.mark.parametrize("model", ["multi_tower", "din", "dssm", "deepfm", "cross"])
@pytest.mark.parametrize("items", [0, 2])
def test_few_items(exported: Get, session: Callable[[str], LoadedModel], model: str, items: int) -> None:
    export = exported(model, *SIDES)
    own = export.recommender.user_columns
    inputs = {n: x if n in own else x[:items] for n, x in for_user(export, inputs_of(export), 5).items()}
    expected = {name: values[:items] for name, values in unsplit(export, 5).items()}
    assert_same(session(model)("serving_default", inputs), expected, 1e-5)
    scores = session(model)("score", {**session(model)("user", inputs), **inputs})
    for name, values in scores.items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5)
    tiled = {name: np.repeat(x, items, axis=0) if name in own else x for name, x in inputs.items()}
    assert_same(session(model)("serving_tiled", tiled), expected, 1e-5)


@pytest.mark.parametrize("model", ["din", "dssm", "dbmtl", "self_attention"])
def test_users_without_a_history(exported: Get, session: Callable[[str], LoadedModel], model: str) -> None:
    export = exported(model, *SIDES)
    frame = request_rows()
    for name in ("seen", "words", "tags"):
        frame[name] = ""
    for name in export.recommender.user_columns.intersection(frame):
        frame[name] = [frame[name][2]] * len(frame)
    expected = trained_predictions(export.recommender, frame)
    inputs = {name: column.numpy() for name, column in served(columns_of(export.recommender, frame)).items()}
    one = for_user(export, inputs, 2)
    assert_same(session(model)("serving_tiled", inputs), expected, 1e-5)
    assert_same(session(model)("serving_default", one), expected, 1e-5)
    scores = session(model)("score", {**session(model)("user", one), **one})
    np.testing.assert_allclose(next(iter(scores.values())), expected[next(iter(scores))], atol=1e-5)


def test_some_columns_of_the_user_may_have_one_row(exported: Get, session: Callable[[str], LoadedModel]) -> None:
    export = exported("multi_tower", *SIDES)
    inputs = inputs_of(export)
    one = for_user(export, inputs, 7)
    mixed = {**one, "user": np.repeat(one["user"], 40), "tags": np.repeat(one["tags"], 40)}
    assert_same(session("multi_tower")("serving_default", mixed), unsplit(export, 7), 1e-5)


@pytest.mark.parametrize("model", ["multi_tower", "din"])
def test_tensorflows_python_loader_tells_users_apart(
    exported: Get, session: Callable[[str], LoadedModel], model: str
) -> None:
    export = exported(model, *SIDES)
    inputs = inputs_of(export)
    loaded = tf.saved_model.load(str(export.path)).signatures["serving_default"]
    for rows in (40, 2, 0):
        some = {name: values[:rows] for name, values in inputs.items()}
        dtypes = {name: spec.dtype for name, spec in loaded.structured_input_signature[1].items()}
        found = loaded(**{name: tf.constant(values, dtypes[name]) for name, values in some.items()})
        assert_same({name: x.numpy() for name, x in found.items()}, session(model)("serving_tiled", some), 1e-6)


def test_rows_that_do_not_go_together_are_refused(exported: Get, session: Callable[[str], LoadedModel]) -> None:
    inputs = inputs_of(exported("multi_tower", *SIDES))
    one = for_user(exported("multi_tower", *SIDES), inputs, 0)
    ask = session("multi_tower")
    message = r"different numbers of rows; expected one number of rows for all, or 1 for all of the user.*user: 3 "
    with pytest.raises(RequestError, match=message):
        ask("serving_default", {**inputs, "user": inputs["user"][:3]})
    with pytest.raises(RequestError, match=r"different numbers of rows.*price: 1 "):
        ask("serving_default", {**one, "price": inputs["price"][:1]})
    with pytest.raises(RequestError, match=r"different numbers of rows; expected one number of rows for all\. "):
        ask("serving_tiled", one)
    with pytest.raises(RequestError, match=r"different numbers of rows"):
        ask("score", {**ask("user", one), **one, "item": inputs["item"][:4]})
    with pytest.raises(RequestError):
        ask("user", inputs)


def test_a_state_of_another_version_is_refused(exported: Get, session: Callable[[str], LoadedModel]) -> None:
    export = exported("multi_tower", *SIDES)
    one = for_user(export, inputs_of(export), 0)
    state = session("multi_tower")("user", one)
    assert state["user_state_version"].tolist() == [int(export.path.name)]
    with pytest.raises(
        RequestError, match=rf"another version of the model; expected {export.path.name}, by its `user`"
    ):
        session("multi_tower")("score", {**state, **one, "user_state_version": [17]})


def test_the_state_is_what_is_cheap_to_send(exported: Get) -> None:
    """The user's share of each product with the items, and of a history its steps; never what was tiled."""
    state = {
        model: {
            tuple(tensor["shape"]): tensor["dtype"]
            for tensor in json.loads((exported(model, *SIDES).path / "assets" / "description.json").read_text())[
                "user_state"
            ]
        }
        for model in ("multi_tower", "dssm", "cross", "deepfm", "self_attention")
    }
    # item tower (4 wide, for age_row) and final network (3 wide); the normalised vector; raw text for crosses
    assert state["multi_tower"] == {(1, 4): "float32", (1, 3): "float32"}
    # The encoded history is gone into the user's tower.
    assert state["self_attention"] == {(1, 3): "float32"}
    assert state["dssm"] == {(1, 3): "float32"}
    assert state["cross"] == {(1,): "string", (1, 4): "float32", (1, 3): "float32"}
    # the linear part, sums and squares of the pairs, the deep network's first product
    assert state["deepfm"] == {(1, 1): "float32", (1, 4): "float32", (1, 5): "float32"}


def test_without_sides_there_is_nothing_to_split(exported: Get) -> None:
    export = exported("dbmtl", *(f"data_config.input_fields[{n}].side=UNKNOWN_SIDE" for n in ("user", "gender", "age")))
    with LoadedModel(export.path) as ask:
        assert set(ask.signatures) == {"serving_default", "serving_tiled"}
        assert_same(ask("serving_default", inputs_of(export)), trained_predictions(export.recommender, request_rows()))


def test_one_string_beside_the_parts(tmp_path: Path) -> None:
    export = make(tmp_path, "din", *SIDES, "export_config.multi_placeholder=false", lists=True, parity_rows=60)
    report = json.loads((export.path / "assets" / "parity.json").read_text())
    assert {d["way"] for d in report["differences"]} == {"serving_default, text", "serving_tiled", "user, score"}


def test_an_export_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true_module = export_module.ServingModule

    class Wrong(true_module):  # type: ignore[misc, valid-type]
        def __init__(self, recommender, *arguments) -> None:  # type: ignore[no-untyped-def]
            super().__init__(recommender, *arguments)
            table = next(iter(self.tables.values()))
            self.tables = {}
            kernel = recommender.model.output_layer.kernel
            self.kept = [kernel, table]
            kernel.assign(kernel * 1.001)

    monkeypatch.setattr(export_module, "ServingModule", Wrong)
    real = export_module.compare

    def with_the_right_kernel(recommender, *arguments, **options):  # type: ignore[no-untyped-def]
        kernel = recommender.model.output_layer.kernel
        kernel.assign(kernel / 1.001)
        return real(recommender, *arguments, **options)

    monkeypatch.setattr(export_module, "compare", with_the_right_kernel)
    with pytest.raises(ParityError, match=r"on 50 rows: .*logits differs by .*expected at most 1e-05"):
        make(tmp_path, "multi_tower", *SIDES, parity_rows=50)
    assert list((tmp_path / "exports").iterdir()) == []


def test_warm_up_requests_are_what_a_server_reads(exported: Get) -> None:
    from tensorflow_serving.apis import prediction_log_pb2

    export = exported("multi_tower", *SIDES)
    path = export.path / "assets.extra" / "tf_serving_warmup_requests"
    logs = [prediction_log_pb2.PredictionLog.FromString(r.numpy()) for r in tf.data.TFRecordDataset(str(path))]
    asked = [log.predict_log.request for log in logs]
    assert {request.model_spec.signature_name for request in asked} == {
        "serving_default",
        "serving_tiled",
        "user",
        "score",
    }
    with LoadedModel(export.path) as ask:
        for request in asked:
            inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
            assert set(inputs) == set(ask.signatures[request.model_spec.signature_name].inputs)
            assert ask(request.model_spec.signature_name, inputs)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="Could not find SavedModel"):
        LoadedModel(tmp_path)


@pytest.mark.parametrize("kind", ["BFLOAT16", "INT8"])
def test_tables_in_fewer_bytes(tmp_path: Path, kind: str) -> None:
    wide = "features[user].embedding_dim=8"  # rows of 4 have no scale of their own
    exact = make(tmp_path / "float32", "multi_tower", *SIDES, wide)
    export = make(tmp_path / kind, "multi_tower", *SIDES, wide, f"export_config.table_type={kind}", parity_rows=60)
    # The parity is with the trainer that has the rounded rows too.
    assert json.loads((export.path / "assets" / "parity.json").read_text())["passed"]
    with LoadedModel(export.path) as ask, LoadedModel(exact.path) as ask_exact:
        found, expected = (one("serving_tiled", inputs_of(export))["probs"] for one in (ask, ask_exact))
    assert 1e-5 < np.abs(found - expected).max() < 0.05
    variables = {str(np.dtype(t.as_numpy_dtype)) for t in _types(export.path)}
    assert ({"bfloat16", "int8"} if kind == "INT8" else {"bfloat16"}) <= variables


def _types(path: Path) -> list[tf.DType]:
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    return list(reader.get_variable_to_dtype_map().values())
