"""One step against NumPy: optimizers, learning rates, clipping, several steps a call."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tiny import MODELS, built, encode, rows

from easyrec_lite.models import Batch, Recommender
from easyrec_lite.training import Stepper

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
    together, alone = built(MODELS["din"]), built(MODELS["din"])
    one, many = Stepper(alone), Stepper(together)
    batches = [encode(together, frame.iloc[start : start + 16]) for start in (0, 16, 32)]
    losses = [{k: float(v) for k, v in one.train(encode(alone, frame.iloc[s : s + 16])).items()} for s in (0, 16, 32)]

    def elements() -> tf.data.Dataset:
        whole = tf.data.Dataset.from_tensors(0)
        dataset = None
        for number, batch in enumerate(batches):
            size = len(batch.targets.labels["click"])
            part = whole.map(
                lambda _, b=batch, n=number, s=size: (b, tf.constant(f"after {n}"), tf.constant(s, tf.int64))
            )
            dataset = part if dataset is None else dataset.concatenate(part)
        return dataset

    iterator = iter(elements())
    first = many.run(iterator, 2)
    assert (first.steps, first.rows, first.position) == (2, 32, "after 1")
    assert first.losses["loss"] == pytest.approx((losses[0]["loss"] + losses[1]["loss"]) / 2, rel=1e-6)
    second = many.run(iterator, 5)
    assert (second.steps, second.rows, second.position) == (1, 8, "after 2")
    assert second.losses == pytest.approx(losses[2], rel=1e-6)
    third = many.run(iterator, 1)
    assert (third.steps, third.rows, third.position) == (0, 0, "")
    check(values(alone), together, atol=1e-4)
