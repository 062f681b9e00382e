"""The zoo by the names that configs use."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.models.base import Model
from easyrec_lite.models.layout import GroupLayout
from easyrec_lite.protos import pipeline_pb2

_MODELS: dict[str, type[Model]] = {}


def register(*names: str) -> Callable[[type[Model]], type[Model]]:
    """Class decorator: makes a model available as `model_class: "<name>"`.

    Raises:
        ValueError: a name is taken; the message says by which class, where.
    """

    def add(model: type[Model]) -> type[Model]:
        for name in names:
            other = _MODELS.get(name)
            if other is not None and other.__qualname__ != model.__qualname__:
                place = f"{inspect.getfile(other)}:{inspect.getsourcelines(other)[1]}"
                raise ValueError(f"The model name {name!r} is taken by {other.__qualname__} ({place}).")
            _MODELS[name] = model
        return model

    return add


def model_names() -> list[str]:
    """All names that `model_class` may have."""
    return sorted(_MODELS)


def model_class(config: pipeline_pb2.EasyRecConfig) -> type[Model]:
    """The class that a config names.

    Raises:
        ConfigError: there is none of that name.
    """
    name = config.model_config.model_class
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(model_names())}"
        raise ConfigError([Problem("model_config.model_class", repr(name), "the name of a model", hint)])
    return _MODELS[name]


def check(config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
    """What the model that the config names finds wrong with it."""
    try:
        model = model_class(config)
    except ConfigError as error:
        yield from error.problems
        return
    yield from model.check(config)


def build_model(config: pipeline_pb2.EasyRecConfig, layouts: Mapping[str, GroupLayout]) -> Model:
    """The model that a checked config describes, without weights yet."""
    return model_class(config)(config, layouts)
