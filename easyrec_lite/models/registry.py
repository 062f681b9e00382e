"""The zoo by the names that configs use."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence

from easyrec_lite.config import WARNING, ConfigError, Problem, item_paths, one_of
from easyrec_lite.models.base import Model
from easyrec_lite.models.layout import GroupLayout
from easyrec_lite.models.metrics import metric_name
from easyrec_lite.protos import eval_pb2, loss_pb2, pipeline_pb2

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
    for path, loss_type, metrics in _tasks(config, model):
        if loss_type not in model.loss_types:
            names = [loss_pb2.LossType.Name(known) for known in model.loss_types]
            yield Problem(f"{path}.loss_type", loss_pb2.LossType.Name(loss_type), one_of(names))
        yield from _check_metrics(model, metrics, f"{path}.metrics_set")
    yield from _check_metrics(model, config.eval_config.metrics_set, "eval_config.metrics_set")


def _tasks(
    config: pipeline_pb2.EasyRecConfig, model: type[Model]
) -> Iterator[tuple[str, int, Sequence[eval_pb2.EvalMetrics]]]:
    """Path, loss type and own metrics of each task."""
    towers = getattr(getattr(config.model_config, model.params_field), "task_towers", ())
    if not towers:
        yield "model_config", config.model_config.loss_type, ()
    base = f"model_config.{model.params_field}.task_towers"
    for path, tower in zip(item_paths(base, towers), towers, strict=True):
        yield path, tower.loss_type, tower.metrics_set


def _check_metrics(model: type[Model], metrics: Sequence[eval_pb2.EvalMetrics], path: str) -> Iterator[Problem]:
    for place, metric in enumerate(metrics):
        if metric.HasField("recall_at_topk") and not model.ranks:
            expected = "a metric of scores, such as auc"
            yield Problem(f"{path}[{place}]", f"recall_at_topk of {model.__name__}", expected, "it ranks no items")
        if metric.auc.HasField("num_thresholds") and metric.auc.num_thresholds < 2:
            found = str(metric.auc.num_thresholds)
            yield Problem(f"{path}[{place}].auc.num_thresholds", found, "at least 2", "leave it out for the exact area")
    names = [metric_name(metric) if metric.WhichOneof("metric") else "" for metric in metrics]
    for place, name in enumerate(names):
        if name and name in names[:place]:
            hint = "only the last is reported, as by EasyRec; leave the others out"
            yield Problem(f"{path}[{place}]", f"another {name}", "metrics of different names", hint, severity=WARNING)


def build_model(config: pipeline_pb2.EasyRecConfig, layouts: Mapping[str, GroupLayout]) -> Model:
    """The model that a checked config describes, without weights yet."""
    return model_class(config)(config, layouts)
