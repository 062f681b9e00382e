"""Optuna's samplers and pruners, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import optuna
from google.protobuf import json_format
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from easyrec_lite.config import ConfigError, Problem, did_you_mean, one_of, quote
from easyrec_lite.errors import UserError
from easyrec_lite.protos import tuning_pb2

# Given by us, or nothing that text could say.
_NOT_FOR_USERS = ("seed", "constraints_func", "search_space")
_BASES = ("BaseSampler", "BaseGASampler", "BasePruner")
# Optuna counts on every process having the same sampler of these.
_SAME_SEED = ("GridSampler", "QMCSampler")
CONSTRAINTS = "constraints"


def check_sampler(plugin: tuning_pb2.SearchPlugin, path: str, several: bool) -> Iterator[Problem]:
    """What is wrong with a sampler; `several` objectives rule out some."""
    yield from _check(optuna.samplers, BaseSampler, plugin.name, _arguments(plugin), path)
    if several and plugin.name in ("CmaEsSampler", "GPSampler"):
        yield Problem(f"{path}.name", plugin.name, "TPESampler or NSGAIISampler, for several objectives")


def check_pruner(plugin: tuning_pb2.SearchPlugin, path: str) -> Iterator[Problem]:
    """What is wrong with a pruner."""
    yield from _check(optuna.pruners, BasePruner, plugin.name, _arguments(plugin), path)


def build_pruner(space: tuning_pb2.SearchSpace) -> BasePruner:
    """The pruner of a space: MedianPruner by default, none with several objectives."""
    if len(space.objectives) > 1:
        return NopPruner()
    if not space.HasField("pruner"):
        return MedianPruner()
    return _build(optuna.pruners, space.pruner.name, _arguments(space.pruner))


def build_sampler(
    space: tuning_pb2.SearchSpace, distributions: Mapping[str, BaseDistribution], seed: int, conditional: bool = False
) -> TrialSampler:
    """The sampler of a space, TPESampler by default.

    Args:
        space: the space.
        distributions: of all choices, for samplers that try a grid.
        seed: of the first trial.
        conditional: some choices are made only where others hold.

    Raises:
        ConfigError: the sampler can't be made of these arguments, or with these distributions.
    """
    name = space.sampler.name or "TPESampler"
    arguments = _arguments(space.sampler)
    parameters = inspect.signature(getattr(optuna.samplers, name)).parameters
    if name == "TPESampler" and conditional and len(space.objectives) == 1 and "multivariate" not in arguments:
        # As it does by default with one objective, but in groups: else it draws conditional choices on their own.
        arguments = {"group": True, **arguments, "multivariate": True}
    if "search_space" in parameters:
        arguments["search_space"] = {key: _grid(key, values) for key, values in distributions.items()}
    if "constraints_func" in parameters and space.HasField("limits"):
        arguments["constraints_func"] = _constraints

    def make(own_seed: int) -> BaseSampler:
        own = {"seed": own_seed} if "seed" in parameters else {}
        try:
            return _build(optuna.samplers, name, {**arguments, **own})
        except ImportError as error:
            raise UserError(f"sampler {name}: needs a package that is not installed ({error})") from None

    make(seed)
    return TrialSampler(make, seed, own_seed=name not in _SAME_SEED)


class TrialSampler(BaseSampler):
    """A sampler whose random numbers are a function of the seed and the trial's number.

    So what a trial chooses does not depend on which process makes it, nor on how often a study was interrupted, but on
    the trials that ended before.

    Args:
        make: makes the sampler of a seed.
        seed: of the study.
        own_seed: each trial has a seed of its own.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int, own_seed: bool = True) -> None:
        self._make, self._seed, self._own_seed = make, seed, own_seed
        self._inner = make(seed)
        self.exhausted = False

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """See BaseSampler."""
        if self._own_seed:
            self._inner = self._make((self._seed * 1_000_003 + trial.number) % 2**31)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See BaseSampler."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See BaseSampler."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See BaseSampler."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """See BaseSampler."""
        try:
            self._inner.after_trial(study, trial, state, values)
        except RuntimeError as error:
            if "Study.stop" not in str(error):
                raise
            self.exhausted = True  # how samplers of finite spaces say that all of it was tried


def _constraints(trial: FrozenTrial) -> Sequence[float]:
    return list(trial.user_attrs.get(CONSTRAINTS, ()))


def _grid(name: str, distribution: BaseDistribution) -> list[Any]:
    match distribution:
        case optuna.distributions.CategoricalDistribution():
            return list(distribution.choices)
        case optuna.distributions.IntDistribution(log=False):
            return list(range(distribution.low, distribution.high + 1, distribution.step))
        case optuna.distributions.FloatDistribution(step=float(step)):
            count = round((distribution.high - distribution.low) / step)
            return [distribution.low + index * step for index in range(count + 1)]
    expected = "a choice of finitely many: values, or a range with a step"
    raise ConfigError([Problem("sampler", f"GridSampler, with {name}", expected)])


def _arguments(plugin: tuning_pb2.SearchPlugin) -> dict[str, Any]:
    arguments: dict[str, Any] = json_format.MessageToDict(plugin.args)
    return {name: _plain(value) for name, value in arguments.items()}


def _plain(value: Any) -> Any:
    """A Struct has no whole numbers; Optuna wants them."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _check(module: ModuleType, base: type, name: str, arguments: Mapping[str, Any], path: str) -> Iterator[Problem]:
    names = _names(module, base)
    if name not in names:
        yield Problem(f"{path}.name", quote(name), one_of(names), did_you_mean(name, names))
        return
    parameters = inspect.signature(getattr(module, name)).parameters
    known = [parameter for parameter in parameters if parameter not in _NOT_FOR_USERS]
    before = True
    for argument, value in arguments.items():
        if argument not in known:
            before = False
            yield Problem(f"{path}.args", quote(argument), f"an argument of {name}", did_you_mean(argument, known))
        elif isinstance(value, dict) and "name" in value:
            inner = optuna.pruners if base is BasePruner else optuna.samplers
            yield from _check(inner, base, str(value["name"]), value.get("args", {}), path)
    for parameter in known:
        if parameters[parameter].default is inspect.Parameter.empty and parameter not in arguments:
            before = False
            yield Problem(f"{path}.args", f"no {parameter}", f"the argument {parameter} of {name}")
    if before and not any(word in parameters for word in ("search_space",)):
        try:
            _build(module, name, arguments)
        except ImportError:
            pass  # told with the name of the package when the search starts
        except (TypeError, ValueError) as error:
            yield Problem(f"{path}.args", str(error), f"arguments that {name} takes")


def _names(module: ModuleType, base: type) -> list[str]:
    found = (getattr(module, name) for name in dir(module))
    classes = [item for item in found if inspect.isclass(item) and issubclass(item, base)]
    return sorted({item.__name__ for item in classes if item.__name__ not in _BASES})


def _build(module: ModuleType, name: str, arguments: Mapping[str, Any]) -> Any:
    made = {
        key: _build(module, value["name"], value.get("args", {}))
        if isinstance(value, dict) and "name" in value
        else value
        for key, value in arguments.items()
    }
    return getattr(module, name)(**made)
