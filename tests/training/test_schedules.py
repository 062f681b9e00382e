from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from easyrec_lite.config import ConfigError
from easyrec_lite.protos import optimizer_pb2
from easyrec_lite.training.schedules import Schedule


def schedule(text: str, multiplier: float = 1.0) -> Schedule:
    return Schedule(text_format.Parse(text, optimizer_pb2.LearningRate()), multiplier)


EXPONENTIAL = "initial_learning_rate: 0.8 decay_steps: 10 decay_factor: 0.5"
BURN_IN = f"{EXPONENTIAL} burnin_steps: 4 burnin_learning_rate: 0.2"
MANUAL = "initial_learning_rate: 0.1 schedule { step: 4 learning_rate: 0.5 } schedule { step: 8 learning_rate: 0.2 }"
COSINE = "learning_rate_base: 0.4 total_steps: 14 warmup_learning_rate: 0.1 warmup_steps: 4 hold_base_rate_steps: 2"
POLY = "learning_rate_base: 1 total_steps: 10 end_learning_rate: 0.2"

CASES = {
    "constant": ("constant_learning_rate { learning_rate: 0.3 }", {0: 0.3, 1: 0.3, 10**9: 0.3}),
    "exponential in stairs": (
        f"exponential_decay_learning_rate {{ {EXPONENTIAL} }}",
        {0: 0.8, 9: 0.8, 10: 0.4, 19: 0.4, 20: 0.2, 30: 0.1},
    ),
    "exponential, smooth": (
        f"exponential_decay_learning_rate {{ {EXPONENTIAL} staircase: false }}",
        {0: 0.8, 5: 0.8 * 0.5**0.5, 10: 0.4, 25: 0.8 * 0.5**2.5},
    ),
    "exponential with a floor": (
        f"exponential_decay_learning_rate {{ {EXPONENTIAL} min_learning_rate: 0.3 }}",
        {0: 0.8, 10: 0.4, 20: 0.3, 10**6: 0.3},
    ),
    "exponential after a burn-in": (
        # Linear from 0.2 to 0.8 in 4 steps; the decay starts where it ends.
        f"exponential_decay_learning_rate {{ {BURN_IN} }}",
        {0: 0.2, 1: 0.35, 3: 0.65, 4: 0.8, 13: 0.8, 14: 0.4, 23: 0.4, 24: 0.2},
    ),
    "burn-in with a floor": (
        f"exponential_decay_learning_rate {{ {BURN_IN} min_learning_rate: 0.5 }}",
        {0: 0.5, 3: 0.65, 4: 0.8, 14: 0.5},
    ),
    "manual": (
        f"manual_step_learning_rate {{ {MANUAL} }}",
        {0: 0.1, 3: 0.1, 4: 0.5, 7: 0.5, 8: 0.2, 10**6: 0.2},
    ),
    "manual with warm-up": (
        f"manual_step_learning_rate {{ {MANUAL} warmup: true }}",
        {0: 0.1, 1: 0.2, 3: 0.4, 4: 0.5, 7: 0.5, 8: 0.2},
    ),
    "manual from the first step on": (
        "manual_step_learning_rate { initial_learning_rate: 0.1 schedule { step: 0 learning_rate: 0.5 } warmup: true }",
        {0: 0.5, 1: 0.5},
    ),
    "manual without changes": ("manual_step_learning_rate { initial_learning_rate: 0.1 }", {0: 0.1, 9: 0.1}),
    "cosine": (
        # 4 steps up, 2 steps held, then half a cosine over the 8 that are left: cos(pi / 4) after 2 of them.
        f"cosine_decay_learning_rate {{ {COSINE} }}",
        {0: 0.1, 1: 0.175, 3: 0.325, 4: 0.4, 6: 0.4, 8: 0.2 * (1 + 0.5**0.5), 10: 0.2, 14: 0.0, 15: 0.0, 10**6: 0.0},
    ),
    "cosine alone": (
        "cosine_decay_learning_rate { learning_rate_base: 0.4 total_steps: 8 warmup_steps: 0 }",
        {0: 0.4, 2: 0.2 * (1 + 0.5**0.5), 4: 0.2, 8: 0.0, 9: 0.0},
    ),
    "poly, a line": (f"poly_decay_learning_rate {{ {POLY} power: 1 }}", {0: 1.0, 5: 0.6, 10: 0.2, 11: 0.2}),
    "poly, a square": (f"poly_decay_learning_rate {{ {POLY} power: 2 }}", {0: 1.0, 5: 0.4, 9: 0.208, 10: 0.2}),
    "transformer": (
        # 2 * 16^-0.5 * 3 = 1.5 times min(n^-0.5, n * 4^-1.5) with n = step + 1.
        "transformer_learning_rate { learning_rate_base: 2 hidden_size: 16 warmup_steps: 4 step_scaling_rate: 3 }",
        {0: 1.5 / 8, 1: 3.0 / 8, 3: 0.75, 8: 0.5, 99: 0.15},
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("graph", [False, True])
def test_values(name: str, graph: bool) -> None:
    text, expected = CASES[name]
    function = schedule(text)
    if graph:
        function = tf.function(function, input_signature=[tf.TensorSpec([], tf.int64)])
    rates = [function(tf.constant(step, tf.int64)) for step in expected]
    assert all(rate.dtype == tf.float32 and rate.shape == [] for rate in rates)
    np.testing.assert_allclose(rates, list(expected.values()), rtol=1e-6, atol=1e-8)


def test_defaults_are_those_of_the_schema() -> None:
    # The rate at most of EasyRec's samples: 0.95 every 4 million steps; cosine warms up over 10,000 steps.
    rate = schedule("exponential_decay_learning_rate {}")
    np.testing.assert_allclose([rate(0), rate(3_999_999), rate(4_000_000)], [0.002, 0.002, 0.0019], rtol=1e-6)
    rate = schedule("cosine_decay_learning_rate {}")
    np.testing.assert_allclose([rate(0), rate(5000), rate(10_000)], [0.0002, 0.0011, 0.002], rtol=1e-6)


def test_multiplier() -> None:
    np.testing.assert_allclose(schedule(CASES["manual"][0], 3.0)(4), 1.5, rtol=1e-6)


def test_round_trip_of_the_keras_config() -> None:
    first = schedule(CASES["cosine"][0], 3.0)
    second = Schedule.from_config(first.get_config())
    assert [float(first(step)) for step in range(16)] == [float(second(step)) for step in range(16)]


def test_keras_optimizer_follows_it() -> None:
    variable = keras.Variable(0.0)
    optimizer = keras.optimizers.SGD(schedule(CASES["manual"][0]))
    for _ in range(5):
        optimizer.apply([tf.constant(1.0)], [variable])
    np.testing.assert_allclose(variable.numpy(), -(4 * 0.1 + 0.5), rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "path", "found"),
    [
        ("", "", "no schedule"),
        ("constant_learning_rate { learning_rate: -1 }", ".constant_learning_rate.learning_rate", "-1"),
        ("constant_learning_rate { learning_rate: nan }", ".constant_learning_rate.learning_rate", "nan"),
        (
            "exponential_decay_learning_rate { decay_steps: 0 }",
            ".exponential_decay_learning_rate.decay_steps",
            "0",
        ),
        (
            "exponential_decay_learning_rate { decay_factor: 0 }",
            ".exponential_decay_learning_rate.decay_factor",
            "0",
        ),
        (
            "manual_step_learning_rate { schedule { step: 5 } schedule { step: 5 } }",
            ".manual_step_learning_rate.schedule",
            r"steps \[5, 5\]",
        ),
        ("cosine_decay_learning_rate { total_steps: 5000 }", ".cosine_decay_learning_rate.total_steps", "5000"),
        (
            "poly_decay_learning_rate { learning_rate_base: 1 power: 1 total_steps: 0 }",
            ".poly_decay_learning_rate.total_steps",
            "0",
        ),
        (
            "transformer_learning_rate { learning_rate_base: 1 hidden_size: 8 }",
            ".transformer_learning_rate.warmup_steps",
            "0",
        ),
    ],
)
def test_what_is_no_schedule(text: str, path: str, found: str) -> None:
    with pytest.raises(ConfigError, match=f"found {found}") as error:
        schedule(text)
    assert [problem.path for problem in error.value.problems] == [f"learning_rate{path}"]
