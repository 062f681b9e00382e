"""Formulas in a config, such as `normalizer_fn: "lambda x: log(x + 1)"`, parsed into data and never run as Python."""

from __future__ import annotations

import ast
import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

from easyrec_lite.config.problems import did_you_mean, one_of, quote

MAX_LENGTH = 1000
MAX_DEPTH = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float


@dataclasses.dataclass(frozen=True, slots=True)
class Variable:
    """A value that is given when the formula is evaluated."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """An operator or a function, by name, on its arguments."""

    function: str
    arguments: tuple[Expression, ...]


Expression = Number | Variable | Call

# Arithmetic and comparisons, which Python's operators do for numbers, arrays and tensors alike.
OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "floor_divide": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "negative": operator.neg,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
}
# Functions that whoever evaluates a formula must provide, with the number of their arguments.
FUNCTIONS: dict[str, int] = {
    "abs": 1,
    "ceil": 1,
    "clip": 3,
    "equal": 2,
    "exp": 1,
    "expm1": 1,
    "floor": 1,
    "log": 1,
    "log1p": 1,
    "logical_and": 2,
    "logical_not": 1,
    "logical_or": 2,
    "maximum": 2,
    "minimum": 2,
    "not_equal": 2,
    "relu": 1,
    "round": 1,
    "rsqrt": 1,
    "sigmoid": 1,
    "sign": 1,
    "softplus": 1,
    "sqrt": 1,
    "square": 1,
    "tanh": 1,
    "where": 3,
}
# Other names of the same, as TensorFlow, NumPy and Python have them.
_ALIASES = {
    "clip_by_value": "clip",
    "max": "maximum",
    "min": "minimum",
    "add": "add",
    "subtract": "subtract",
    "sub": "subtract",
    "multiply": "multiply",
    "mul": "multiply",
    "divide": "divide",
    "div": "divide",
    "pow": "pow",
    "power": "pow",
    "negative": "negative",
}
_MODULES = {"tf", "tf.math", "tf.nn", "math", "np", "numpy", "tf.keras.activations", "tf.keras.backend"}
_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.FloorDiv: "floor_divide",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.BitAnd: "logical_and",
    ast.BitOr: "logical_or",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}


class ExpressionError(ValueError):
    """A formula that cannot be expressed here; `found`, `expected` and `hint` as in a Problem."""

    def __init__(self, found: str, expected: str, hint: str = ""):
        super().__init__(f"found {found}, expected {expected}" + (f" ({hint})" if hint else ""))
        self.found, self.expected, self.hint = found, expected, hint


def parse_expression(text: str, variables: tuple[str, ...] = ("x",)) -> Expression:
    """Parses a formula.

    Args:
        text: "lambda x: x / 10" (its parameter is renamed to the first of `variables`) or just "x / 10"; functions
            may carry their module, as `tf.math.log`.
        variables: the names that the formula may use.

    Raises:
        ExpressionError: it is no formula, or uses what formulas do not have.
    """
    text = text.strip()
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"a formula of {len(text)} characters", f"at most {MAX_LENGTH}")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExpressionError(quote(text), "a formula like 'lambda x: log(x + 1)'") from None
    names = {name: name for name in variables}
    if isinstance(tree, ast.Lambda):
        arguments = tree.args
        plain = [argument.arg for argument in arguments.args]
        others = (arguments.vararg, arguments.kwarg, *arguments.kwonlyargs, *arguments.posonlyargs, *arguments.defaults)
        if len(plain) != len(variables) or any(others):
            raise ExpressionError(quote(text), f"a lambda of {len(variables)} plain parameter(s)")
        names = dict(zip(plain, variables, strict=True))
        tree = tree.body
    elif isinstance(tree, ast.Attribute | ast.Name) and _dotted(tree) not in names:
        hint = "no Python is run: write the formula, or compute the value before training"
        raise ExpressionError(f"the function {quote(text)}", "a formula like 'lambda x: log(x + 1)'", hint)
    return _convert(tree, names, 0)


def evaluate(
    expression: Expression, variables: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]] | None = None
) -> Any:
    """Computes a formula.

    Args:
        expression: what parse_expression returned.
        variables: the value of each variable: a number, an array or a tensor.
        functions: what the names in FUNCTIONS do to such values; they win over OPERATORS.
    """
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Variable):
        return variables[expression.name]
    known = {**OPERATORS, **(functions or {})}
    arguments = [evaluate(argument, variables, functions) for argument in expression.arguments]
    if expression.function not in known:
        raise ExpressionError(f"the function {expression.function}", "a function that is provided")
    return known[expression.function](*arguments)


def _convert(node: ast.AST, names: Mapping[str, str], depth: int) -> Expression:
    if depth > MAX_DEPTH:
        raise ExpressionError("a formula nested too deep", f"at most {MAX_DEPTH} levels")

    def inner(*nodes: ast.AST) -> tuple[Expression, ...]:
        return tuple(_convert(each, names, depth + 1) for each in nodes)

    match node:
        case ast.Constant(value=bool() as value):
            return Number(float(value))
        case ast.Constant(value=int() | float() as value):
            try:
                return Number(float(value))
            except OverflowError:
                raise ExpressionError("a number of that size", "a number that fits in a float") from None
        case ast.Name(id=name):
            if name in names:
                return Variable(names[name])
            raise ExpressionError(f"the unknown name {quote(name)}", one_of(list(names)), did_you_mean(name, names))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return Call(_BINARY[type(op)], inner(left, right))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return Number(-float(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return Call("negative", inner(operand))
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return inner(operand)[0]
        case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
            return Call("logical_not", inner(operand))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _BINARY:
            return Call(_BINARY[type(op)], inner(left, right))
        case ast.BoolOp(op=op, values=[first, *others]):
            result = inner(first)[0]
            for other in others:
                function = "logical_and" if isinstance(op, ast.And) else "logical_or"
                result = Call(function, (result, *inner(other)))
            return result
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return Call("where", inner(test, body, orelse))
        case ast.Call(func=func, args=arguments, keywords=[]) if not any(isinstance(a, ast.Starred) for a in arguments):
            return _call(func, inner(*arguments))
    raise ExpressionError(
        quote(ast.unparse(node)), "numbers, + - * / **, comparisons and functions", "no Python is run"
    )


def _call(function: ast.AST, arguments: tuple[Expression, ...]) -> Expression:
    module, _, name = _dotted(function).rpartition(".")
    name = _ALIASES.get(name, name)
    count = FUNCTIONS.get(name, 1 if name == "negative" else 2 if name in OPERATORS else None)
    if count is None or (module and module not in _MODULES):
        known = sorted(FUNCTIONS)
        raise ExpressionError(f"the unknown function {ast.unparse(function)}", one_of(known), did_you_mean(name, known))
    if len(arguments) != count:
        raise ExpressionError(f"{name} of {len(arguments)} argument(s)", f"{count}")
    return Call(name, arguments)


def _dotted(node: ast.AST) -> str:
    """`tf.math.log` as text; empty for anything but names and dots."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return ""
