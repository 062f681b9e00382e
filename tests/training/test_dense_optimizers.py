from __future__ import annotations

import keras
import numpy as np
import pytest
from google.protobuf import text_format

from easyrec_lite.config import ConfigError
from easyrec_lite.protos import pipeline_pb2, train_pb2
from easyrec_lite.training.optimizers import build_dense_optimizer, check, embedding_schedule, optimizer_problems


def train_config(*optimizers: str) -> train_pb2.TrainConfig:
    text = " ".join(f"optimizer_config {{ {optimizer} }}" for optimizer in optimizers)
    return text_format.Parse(text, train_pb2.TrainConfig())


def constant(rate: float) -> str:
    return f"learning_rate {{ constant_learning_rate {{ learning_rate: {rate} }} }}"


@pytest.mark.parametrize("kind", ["adam_optimizer", "lazy_adam_optimizer"])
def test_adam(kind: str) -> None:
    config = train_config(f"{kind} {{ {constant(0.5)} beta1: 0.75 beta2: 0.875 epsilon: 0.25 }}")
    optimizer = build_dense_optimizer(config)
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert (optimizer.beta_1, optimizer.beta_2, optimizer.epsilon) == (0.75, 0.875, 0.25)
    variable = keras.Variable([1.0])
    optimizer.apply([np.array([2.0], np.float32)], [variable])
    # m = 0.25 * 2, v = 0.125 * 4, rate = 0.5 * sqrt(0.125) / 0.25
    expected = 1 - 0.5 * np.sqrt(0.125) / 0.25 * 0.5 / (np.sqrt(0.5) + 0.25)
    np.testing.assert_allclose(variable.numpy(), [expected], rtol=1e-6)


def test_adagrad() -> None:
    text = f"adagrad_optimizer {{ {constant(0.5)} initial_accumulator_value: 0.25 epsilon: 0.75 }}"
    optimizer = build_dense_optimizer(train_config(text))
    assert isinstance(optimizer, keras.optimizers.Adagrad)
    variable = keras.Variable([1.0])
    optimizer.apply([np.array([2.0], np.float32)], [variable])
    np.testing.assert_allclose(variable.numpy(), [1 - 0.5 * 2 / np.sqrt(0.25 + 4 + 0.75)], rtol=1e-6)


def test_one_optimizer_serves_both() -> None:
    config = train_config(f"adam_optimizer {{ {constant(0.5)} }}")
    assert float(build_dense_optimizer(config).learning_rate) == 0.5
    assert float(embedding_schedule(config)(0)) == 0.5


def test_two_optimizers_are_of_the_tables_and_of_the_rest() -> None:
    config = train_config(f"adagrad_optimizer {{ {constant(0.25)} }}", f"adam_optimizer {{ {constant(0.5)} }}")
    assert isinstance(build_dense_optimizer(config), keras.optimizers.Adam)
    assert float(build_dense_optimizer(config).learning_rate) == 0.5
    assert float(embedding_schedule(config)(0)) == 0.25


@pytest.mark.parametrize(("multiplier", "rate"), [("", 0.25), ("0", 0.0), ("2", 0.5)])
def test_multiplier_of_the_tables(multiplier: str, rate: float) -> None:
    extra = f"embedding_learning_rate_multiplier: {multiplier}" if multiplier else ""
    config = train_config(f"adam_optimizer {{ {constant(0.25)} }} {extra}")
    assert float(embedding_schedule(config)(0)) == rate
    assert float(build_dense_optimizer(config).learning_rate) == 0.25


GOOD = f"adam_optimizer {{ {constant(0.5)} }}"


@pytest.mark.parametrize(
    ("optimizers", "path", "found"),
    [
        ([], "", "0 optimizers"),
        ([GOOD] * 3, "", "3 optimizers"),
        ([GOOD, "ftrl_optimizer {}"], "[1]", "ftrl_optimizer"),
        (["use_moving_average: false"], "[0]", "no optimizer"),
        (["adam_optimizer {}"], "[0].adam_optimizer.learning_rate", "no schedule"),
        ([f"adam_optimizer {{ {constant(1)} beta1: 1 }}"], "[0].adam_optimizer.beta1", "1"),
        ([f"lazy_adam_optimizer {{ {constant(1)} beta2: -1 }}"], "[0].lazy_adam_optimizer.beta2", "-1"),
        ([f"adam_optimizer {{ {constant(1)} epsilon: 0 }}"], "[0].adam_optimizer.epsilon", "0"),
        (
            [f"adagrad_optimizer {{ {constant(1)} initial_accumulator_value: -0.5 }}"],
            "[0].adagrad_optimizer.initial_accumulator_value",
            "-0.5",
        ),
    ],
)
def test_problems_name_their_place(optimizers: list[str], path: str, found: str) -> None:
    config = train_config(*optimizers)
    (problem,) = optimizer_problems(config)
    assert (problem.path, problem.found) == (f"train_config.optimizer_config{path}", found)
    for build in (build_dense_optimizer, embedding_schedule):
        with pytest.raises(ConfigError) as error:
            build(config)
        assert error.value.problems == [problem]


def test_all_problems_at_once() -> None:
    config = train_config("adam_optimizer { beta1: 2 epsilon: -1 }", "")
    assert len(list(optimizer_problems(config))) == 4
    assert list(check(pipeline_pb2.EasyRecConfig(train_config=config))) == list(optimizer_problems(config))


def test_adagrad_may_do_without_epsilon() -> None:
    assert not list(optimizer_problems(train_config(f"adagrad_optimizer {{ {constant(1)} epsilon: 0 }}")))
