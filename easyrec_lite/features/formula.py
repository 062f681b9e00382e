"""Formulas of a config, computed on tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow as tf

from easyrec_lite.config import ConfigError, ExpressionError, Problem, evaluate, parse_expression

_Function = Callable[..., tf.Tensor]


class Formula:
    """A formula over named variables; truth is a number too, 1 or 0, and any number but 0 is true.

    Args:
        text: as `parse_expression` takes it.
        variables: the names that it may use.
        path: of the field that holds it.

    Raises:
        ConfigError: the text is no formula.
    """

    def __init__(self, text: str, variables: tuple[str, ...], path: str) -> None:
        try:
            self._expression = parse_expression(text, variables)
        except ExpressionError as error:
            raise ConfigError([_problem(path, error)]) from None

    def __call__(self, **variables: tf.Tensor) -> tf.Tensor:
        """The formula's value, of the variables' shape and type (float32 or float64); not finite counts as 0.

        Raises:
            ExpressionError: it needs a function that has no meaning here.
        """
        like = next(iter(variables.values()))
        result = tf.cast(evaluate(self._expression, variables, _functions(like.dtype)), like.dtype)
        result = tf.broadcast_to(result, tf.shape(like))  # it may be a constant
        return tf.ensure_shape(tf.where(tf.math.is_finite(result), result, 0), like.shape)


def formula_problems(text: str, variables: tuple[str, ...], path: str) -> Iterable[Problem]:
    """What is wrong with a formula."""
    try:
        parse_expression(text, variables)
    except ExpressionError as error:
        yield _problem(path, error)


def _problem(path: str, error: ExpressionError) -> Problem:
    return Problem(path, error.found, error.expected, error.hint)


def _functions(dtype: tf.DType) -> Mapping[str, _Function]:
    """What the names in a formula do to tensors of `dtype`."""

    def number(function: Callable[..., Any]) -> _Function:
        return lambda *arguments: function(*(tf.cast(argument, dtype) for argument in arguments))

    def truth(function: Callable[..., Any]) -> _Function:
        return lambda *arguments: tf.cast(number(function)(*arguments), dtype)

    def logic(function: Callable[..., Any]) -> _Function:
        return lambda *arguments: tf.cast(function(*(tf.not_equal(tf.cast(a, dtype), 0) for a in arguments)), dtype)

    return {
        **{name: number(function) for name, function in _NUMERIC.items()},
        **{name: truth(function) for name, function in _COMPARISONS.items()},
        "logical_and": logic(tf.logical_and),
        "logical_not": logic(tf.logical_not),
        "logical_or": logic(tf.logical_or),
        "where": number(lambda condition, yes, no: tf.where(tf.not_equal(condition, 0), yes, no)),
    }


_NUMERIC: Mapping[str, Callable[..., Any]] = {
    "abs": tf.abs,
    "ceil": tf.math.ceil,
    "clip": tf.clip_by_value,
    "exp": tf.exp,
    "expm1": tf.math.expm1,
    "floor": tf.floor,
    "log": tf.math.log,
    "log1p": tf.math.log1p,
    "maximum": tf.maximum,
    "minimum": tf.minimum,
    "relu": tf.nn.relu,
    "round": tf.round,
    "rsqrt": tf.math.rsqrt,
    "sigmoid": tf.sigmoid,
    "sign": tf.sign,
    "softplus": tf.math.softplus,
    "sqrt": tf.sqrt,
    "square": tf.square,
    "tanh": tf.tanh,
}
_COMPARISONS: Mapping[str, Callable[..., Any]] = {
    "equal": tf.equal,
    "greater": tf.greater,
    "greater_equal": tf.greater_equal,
    "less": tf.less,
    "less_equal": tf.less_equal,
    "not_equal": tf.not_equal,
}
