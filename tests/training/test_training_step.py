"""One step against NumPy: optimizers, learning rates, clipping, several steps a call."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tiny import MODELS, built, encode, rows

from easyrec_lite.models import Batch, Recommender
from easyrec_lite.training import Element, Stepper, Until

Arrays = dict[str, np.ndarray]

CONSTANT = "learning_rate { constant_learning_rate { learning_rate: %s } }"
ADAGRAD = f"adagrad_optimizer {{ {CONSTANT % 0.1} initial_accumulator_value: 0.2 }}"
ADAM = f"adam_optimizer {{ {CONSTANT % 0.01} beta1: 0.8 beta2: 0.9 epsilon: 0.01 }}"


def values(recommender: Recommender) -> Arrays:
    """Dense variables by path and whole tables by name, in float64."""
    found = {v.path: np.asarray(v.numpy(), np.float64) for v in recommender.trainable_variables}
    for view in recommender.collection.views():
        if view.name.endswith("/weights"):
            found[view.name] = view.read(0, view.shape[0]).astype(np.float64)
    return found


def gradients(recommender: Recommender, batch: Batch) -> Arrays:
    """Of the whole loss, by the names of `values`; tables as large as they are."""
    collection = recommender.collection
    weights = collection.weights(collection.gather(batch.plan))
    variables = [variable.value for variable in recommender.trainable_variables]
    moving = [(v, v.numpy()) for v in recommender.dense_variables if not v.trainable]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        predictions, embedding_l2 = recommender.forward(weights, batch, training=True)
        total = tf.add_n(list(recommender.losses(predictions, batch.targets, embedding_l2).values()))
    dense, sparse = tape.gradient(total, (variables, weights))
    for variable, value in moving:
        variable.assign(value)
    found = {v.path: np.asarray(g, np.float64) for v, g in zip(recommender.trainable_variables, dense, strict=True)}
    for key, gradient in sparse.items():
        variable = collection.variables_by_bucket[key]
        whole = np.zeros((variable.shape[0], gradient.shape[1]))
        whole[batch.plan.distinct[key].numpy()] = tf.convert_to_tensor(gradient).numpy()
        for view in collection.views():
            if view.variable is variable and view.name.endswith("/weights"):
                found[view.name] = whole[view.first_row : view.first_row + view.shape[0]]
    return found


def adagrad(weights: np.ndarray, gradient: np.ndarray, accumulator: np.ndarray, rate: float) -> np.ndarray:
    accumulator += gradient**2
    return weights - rate * gradient / np.sqrt(accumulator + 1e-7)


def check(expected: Arrays, recommender: Recommender, atol: float = 2e-6) -> None:
    for name, found in values(recommender).items():
        np.testing.assert_allclose(found, expected[name], rtol=2e-4, atol=atol, err_msg=name)


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_two_optimizers_and_clipping(clip: float) -> None:
    """Adagrad at 0.1 on the tables, Adam at 0.01 on the rest; gradients scaled to one norm over both."""
    recommender = built(
        MODELS["multi_tower"],
        f"train_config.optimizer_config=[{{{ADAGRAD}}}, {{{ADAM}}}]",
        f"train_config.gradient_clipping_by_norm={clip}",
    )
    stepper = Stepper(recommender)
    expected = values(recommender)
    accumulators = {name: np.full_like(value, 0.2) for name, value in expected.items()}
    m = {name: np.zeros_like(value) for name, value in expected.items()}
    v = {name: np.zeros_like(value) for name, value in expected.items()}
    for step in (1, 2, 3):
        batch = encode(recommender, rows(16, seed=step))
        found = gradients(recommender, batch)
        norm = np.sqrt(sum((gradient**2).sum() for gradient in found.values()))
        assert norm > 0.05
        for name, gradient in found.items():
            scaled = gradient * min(1.0, clip / norm) if clip else gradient
            if name.startswith("embeddings/"):
                expected[name] = adagrad(expected[name], scaled, accumulators[name], 0.1)
                continue
            m[name] += (scaled - m[name]) * 0.2
            v[name] += (scaled**2 - v[name]) * 0.1
            rate = 0.01 * np.sqrt(1 - 0.9**step) / (1 - 0.8**step)
            expected[name] = expected[name] - rate * m[name] / (np.sqrt(v[name]) + 0.01)
        losses = stepper.train(batch)
        assert float(losses["loss"]) == pytest.approx(sum(float(v) for k, v in losses.items() if k != "loss"), rel=1e-6)
        check(expected, recommender, atol=1e-5)
    assert int(stepper.step) == 3


def test_clipping_counts_what_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most users are missing: they share one row, which stays as it is."""
    recommender = built(MODELS["multi_tower"], "train_config.gradient_clipping_by_norm=0.001")
    stepper = Stepper(recommender)
    frame = rows(64, seed=1)
    frame.loc[4:, "user"] = 12
    applied: list[tf.Tensor] = []
    monkeypatch.setattr(
        recommender.collection, "update", lambda _, __, found, *___: applied.extend(g[1:] for g in found.values())
    )
    monkeypatch.setattr(stepper.optimizer, "apply", lambda found, _: applied.extend(found))
    stepper.train(encode(recommender, frame))
    assert float(tf.linalg.global_norm(applied)) == pytest.approx(0.001, rel=1e-5)


def test_learning_rate_of_the_tables() -> None:
    recommender = built(
        MODELS["din"],
        f"train_config.optimizer_config=[{{{ADAGRAD} embedding_learning_rate_multiplier: 0.5}}]",
    )
    stepper = Stepper(recommender)
    expected = values(recommender)
    batch = encode(recommender, rows(16, seed=5))
    for name, gradient in gradients(recommender, batch).items():
        rate = 0.05 if name.startswith("embeddings/") else 0.1
        expected[name] = adagrad(expected[name], gradient, np.full_like(gradient, 0.2), rate)
    stepper.train(batch)
    check(expected, recommender)


def test_schedules_count_steps_from_nought() -> None:
    """Tables and dense layers follow the same rate: 0.1 in the first step, 0.01 from the second on."""
    schedule = "manual_step_learning_rate { initial_learning_rate: 0.1 schedule { step: 1 learning_rate: 0.01 } }"
    optimizer = ADAGRAD.replace(CONSTANT % 0.1, f"learning_rate {{ {schedule} }}")
    recommender = built(MODELS["din"], f"train_config.optimizer_config=[{{{optimizer}}}]")
    stepper = Stepper(recommender)
    expected = values(recommender)
    accumulators = {name: np.full_like(value, 0.2) for name, value in expected.items()}
    for step, rate in enumerate((0.1, 0.01)):
        batch = encode(recommender, rows(16, seed=step))
        for name, gradient in gradients(recommender, batch).items():
            expected[name] = adagrad(expected[name], gradient, accumulators[name], rate)
        stepper.train(batch)
        check(expected, recommender)


def test_only_the_rows_of_the_batch_change() -> None:
    recommender = built(MODELS["dssm"])
    before = values(recommender)
    frame = rows(8, seed=6).assign(user=3, item=[1, 2, 5, 5, 1, 2, 2, 1], seen="1|2")
    Stepper(recommender).train(encode(recommender, frame))
    after = values(recommender)

    def changed(table: str) -> list[int]:
        name = f"embeddings/{table}/weights"
        return np.flatnonzero(np.any(before[name] != after[name], axis=1)).tolist()

    assert changed("user") == [3]
    assert changed("item") == [1, 2, 5]


def test_several_steps_a_call_and_the_end_of_the_data() -> None:
    frame = rows(40, seed=7)
    batches = [frame.iloc[start : start + 16] for start in (0, 16, 32)]
    together, alone, eager = (built(MODELS["din"]) for _ in range(3))
    one, many, plain = Stepper(alone), Stepper(together), Stepper(eager)
    losses = [{name: float(loss) for name, loss in plain.train(encode(eager, batch)).items()} for batch in batches]
    step_by_step = iter(elements(alone, batches))
    assert [one.run(step_by_step, Until(steps=1)).steps for _ in batches] == [1, 1, 1]
    iterator = iter(elements(together, batches))

    first = many.run(iterator, Until(steps=2))
    assert (first.steps, first.rows, first.position, first.more) == (2, 32, "after 1", True)
    assert first.event_time == 1001.0
    assert first.losses["loss"] == pytest.approx([losses[0]["loss"], losses[1]["loss"]], rel=1e-6)
    assert first.mean_losses["loss"] == pytest.approx((losses[0]["loss"] + losses[1]["loss"]) / 2, rel=1e-6)
    second = many.run(iterator, Until(steps=5))
    assert (second.steps, second.rows, second.position, second.more) == (1, 8, "after 2", False)
    assert second.mean_losses == pytest.approx(losses[2], rel=1e-6)
    third = many.run(iterator, Until(steps=1))
    assert (third.steps, third.rows, third.position, third.more) == (0, 0, "", False)
    assert third.mean_losses == {}
    check(values(alone), together)


@pytest.mark.parametrize(
    ("until", "steps"),
    [
        (Until(rows=16), 1),
        (Until(rows=17), 2),
        (Until(event_time=1000.0), 1),
        (Until(event_time=1000.5), 2),
        (Until(seconds=-1.0), 1),  # one batch in any case, or nothing would ever be done
        (Until(), 3),
    ],
)
def test_a_call_ends_with_the_step_that_reaches_a_limit(until: Until, steps: int) -> None:
    frame = rows(48, seed=7)
    recommender = built(MODELS["din"])
    iterator = iter(elements(recommender, [frame.iloc[start : start + 16] for start in (0, 16, 32)]))
    assert Stepper(recommender).run(iterator, until).steps == steps


def test_a_batch_without_rows_is_no_step_and_ends_the_call() -> None:
    frame = rows(16, seed=7)
    recommender, other = built(MODELS["din"]), built(MODELS["din"])
    stepper, plain = Stepper(recommender), Stepper(other)
    iterator = iter(elements(recommender, [frame, frame.iloc[:0], frame]))
    results = [stepper.run(iterator, Until()) for _ in range(3)]
    assert [(r.steps, r.rows, r.position, r.more) for r in results] == [
        (1, 16, "after 1", True),  # the position goes on, so that gaps in a stream aren't read again
        (1, 16, "after 2", False),
        (0, 0, "", False),
    ]
    for _ in range(2):
        plain.train(encode(other, frame))
    check(values(other), recommender, atol=0)


def test_scorers_see_a_batch_before_it_is_trained_on() -> None:
    frame = rows(48, seed=7)
    recommender, other = built(MODELS["din"]), built(MODELS["din"])
    plain, seen = Stepper(other), []

    def score(
        batch: Batch, predictions: Callable[[], dict[str, tf.Tensor]], step: tf.Tensor, _: object
    ) -> tf.Operation:
        name, scores = sorted(predictions().items())[0]
        return tf.numpy_function(
            lambda *arrays: seen.append((name, *arrays)) or np.int64(0), [step, scores], tf.int64
        ).op

    pieces = [frame.iloc[start : start + 16] for start in (0, 16, 32)]
    Stepper(recommender, [score]).run(iter(elements(recommender, pieces)), Until())
    for number, (piece, (name, step, scores)) in enumerate(zip(pieces, seen, strict=True)):
        batch = encode(other, piece)
        assert step == number
        before = other.predict(batch)[name]
        plain.train(batch)
        error, change = np.abs(scores - before).max(), np.abs(before - other.predict(batch)[name]).max()
        assert error < 0.1 * change  # Adam turns the rounding of small gradients into more


def elements(recommender: Recommender, pieces: list[pd.DataFrame]) -> tf.data.Dataset:
    """The pieces as the loop hands them to the step; events of piece n at 1000 + n seconds."""
    whole = tf.data.Dataset.from_tensors(0)
    parts = []
    for number, piece in enumerate(pieces):
        element = Element(
            encode(recommender, piece),
            tf.constant(f"after {number}"),
            tf.constant(len(piece), tf.int64),
            tf.constant(1000.0 + number, tf.float64),
        )
        parts.append(whole.map(lambda _, e=element: e))
    return functools.reduce(tf.data.Dataset.concatenate, parts)
