"""What can be wrong with a search space itself, and its choices once nothing is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from google.protobuf.message import Message
from optuna.distributions import FloatDistribution, IntDistribution

from easyrec_lite.config import ConfigError, Problem, did_you_mean, one_of, parse_path, quote
from easyrec_lite.protos import tuning_pb2
from easyrec_lite.tuning.choices import (
    AlternativeChoice,
    CandidateFeature,
    Choice,
    Condition,
    FieldChoice,
    OptionalFeature,
)
from easyrec_lite.tuning.plugins import check_pruner, check_sampler

_KINDS = ("int_range", "float_range", "values", "alternatives")


class SpaceReader:
    """Makes choices of a message, and collects what is wrong with it.

    Args:
        message: as it was read.
        reported: paths of what could not be read; nothing more is said of them.

    Attributes:
        problems: all that was found by now.
    """

    def __init__(self, message: tuning_pb2.SearchSpace, reported: set[str]) -> None:
        self.problems: list[Problem] = []
        self._message = message
        self._reported = reported

    def choices(self) -> list[Choice]:
        """The choices, each after those that its conditions name; an unusable one is left out."""
        found: list[Choice | None] = [
            self._parameter(parameter, f"parameters[{index}]")
            for index, parameter in enumerate(self._message.parameters)
        ]
        for index, candidate in enumerate(self._message.candidate_features):
            found.append(self._candidate(candidate, f"candidate_features[{index}]"))
        for index, name in enumerate(self._message.optional_features):
            found.append(OptionalFeature(f"use.{name}", (), f"optional_features[{index}]", name))
        choices = [choice for choice in found if choice is not None]
        if not found:
            self._report("", "no choices", "parameters, optional_features or candidate_features")
        counts = Counter(choice.name for choice in choices)
        for choice in choices:
            if counts[choice.name] > 1:
                self._report(choice.place, f"two choices named {quote(choice.name)}", "a name of its own for each")
        if len(choices) < len(found) or any(count > 1 for count in counts.values()):
            return []
        self._check_conditions(choices)
        return self._in_order(choices)

    def check_rest(self) -> None:
        """Objectives, limits, sampler and pruner."""
        message = self._message
        if not message.objectives:
            self._report("objectives", "nothing", 'what to search for: objectives { metric: "auc" }')
        names = Counter(objective.metric for objective in message.objectives)
        for index, objective in enumerate(message.objectives):
            where = f"objectives[{index}]"
            if not objective.metric:
                self._report(f"{where}.metric", "nothing", 'the name of a metric, as "auc"')
            elif names[objective.metric] > 1:
                self._report(f"{where}.metric", f"{objective.metric} twice", "each metric once")
        for field, value in message.limits.ListFields():
            if value <= 0:
                self._report(f"limits.{field.name}", str(value), "a number above 0")
        if message.seeds_per_trial < 1:
            self._report("seeds_per_trial", "0", "a whole number of at least 1")
        several = len(message.objectives) > 1
        if message.HasField("sampler"):
            self.problems += check_sampler(message.sampler, "sampler", several)
        if message.HasField("pruner"):
            self.problems += check_pruner(message.pruner, "pruner")
            if several and message.pruner.name != "NopPruner":
                expected = "no pruner: Optuna has none for several objectives"
                self._report("pruner", message.pruner.name or "a pruner", expected)

    def _parameter(self, parameter: tuning_pb2.Parameter, place: str) -> Choice | None:
        name = parameter.name or (parameter.path[0] if parameter.path else "")
        kinds = [kind for kind in _KINDS if _is_set(parameter, kind)]
        before = len(self.problems)
        when = self._conditions(parameter.when, place)
        if not name:
            self._report(place, "neither a name nor a path", "at least one of them")
        # A kind that could not be read has been reported.
        if len(kinds) != 1 and not any(path.startswith(f"{place}.") for path in self._reported):
            found = " and ".join(kinds) or "nothing to choose from"
            self._report(place, f"{found} in {name or 'a parameter'}", one_of(_KINDS))
        for index, path in enumerate(parameter.path):
            try:
                parse_path(path)
            except ConfigError as error:
                problem = error.problems[0]
                self._report(f"{place}.path[{index}]", f"{problem.found} in {path}", problem.expected, problem.hint)
        if kinds == ["alternatives"]:
            if parameter.path:
                expected = "no path: each of the alternatives says what it changes"
                self._report(f"{place}.path[0]", "path, with alternatives", expected)
            self._check_alternatives(parameter, place)
            return AlternativeChoice(name, when, place, tuple(parameter.alternatives)) if self._fine(before) else None
        if not parameter.path and name:
            self._report(place, f"no path in {name}", "the field that takes the value")
        if len(kinds) != 1 or not self._fine(before):
            return None
        values = self._values(parameter, kinds[0], place)
        return FieldChoice(name, when, place, tuple(parameter.path), values) if values is not None else None

    def _candidate(self, candidate: tuning_pb2.CandidateFeature, place: str) -> Choice | None:
        before = len(self.problems)
        feature = candidate.feature
        name = feature.feature_name or next(iter(feature.input_names), "")
        if not name:
            self._report(f"{place}.feature", "a feature without input_names", "its columns")
        if not candidate.groups:
            self._report(f"{place}.groups", "nothing", "the names of the groups that the feature joins")
        when = self._conditions(candidate.when, place)
        if not self._fine(before):
            return None
        return CandidateFeature(f"use.{name}", when, place, feature, tuple(candidate.groups))

    def _values(
        self, parameter: tuning_pb2.Parameter, kind: str, place: str
    ) -> IntDistribution | FloatDistribution | tuple[str, ...] | None:
        if kind == "values":
            values = tuple(parameter.values)
            if twice := next((value for value in values if values.count(value) > 1), None):
                self._report(f"{place}.values[{values.index(twice)}]", f"{quote(twice)} twice", "each value once")
                return None
            return values
        numbers: Any = getattr(parameter, kind)
        where = f"{place}.{kind}"
        missing = [end for end in ("low", "high") if not numbers.HasField(end)]
        for end in missing:
            if f"{where}.{end}" not in self._reported:
                self._report(f"{where}.{end}", "nothing", "a number", "the field is required")
        if missing:
            return None
        stepped = numbers.HasField("step")
        before = len(self.problems)
        if numbers.low > numbers.high:
            self._report(f"{where}.low", str(numbers.low), f"at most high, {numbers.high}")
        if stepped and numbers.step <= 0:
            self._report(f"{where}.step", str(numbers.step), "a number above 0")
        if numbers.log and stepped and (kind == "float_range" or numbers.step != 1):
            self._report(f"{where}.step", "step and log", "only one of them")
        if numbers.log and numbers.low <= 0:
            self._report(f"{where}.low", str(numbers.low), "a number above 0, for log")
        if not self._fine(before):
            return None
        if kind == "int_range":
            # Optuna rounds a range down to whole steps, with a warning that nobody could act on.
            high = numbers.low + (numbers.high - numbers.low) // numbers.step * numbers.step
            return IntDistribution(numbers.low, high, numbers.log, numbers.step)
        if not stepped:
            return FloatDistribution(numbers.low, numbers.high, numbers.log)
        high = numbers.low + int((numbers.high - numbers.low) / numbers.step + 1e-9) * numbers.step
        return FloatDistribution(numbers.low, high, step=numbers.step)

    def _check_alternatives(self, parameter: tuning_pb2.Parameter, place: str) -> None:
        names = [alternative.name for alternative in parameter.alternatives]
        for index, name in enumerate(names):
            where = f"{place}.alternatives[{index}].name"
            if not name:
                self._report(where, "nothing", "a name", "the field is required")
            elif names.count(name) > 1:
                self._report(where, f"{quote(name)} twice", "a name of its own for each")

    def _conditions(self, conditions: Sequence[tuning_pb2.ChoiceCondition], place: str) -> tuple[Condition, ...]:
        found = []
        for index, condition in enumerate(conditions):
            low = condition.at_least if condition.HasField("at_least") else None
            high = condition.at_most if condition.HasField("at_most") else None
            if not condition.one_of and low is None and high is None:
                self._report(f"{place}.when[{index}]", "no value", "one_of, at_least or at_most")
            found.append(Condition(condition.parameter, tuple(condition.one_of), low, high))
        return tuple(found)

    def _check_conditions(self, choices: Sequence[Choice]) -> None:
        by_name = {choice.name: choice for choice in choices}
        for choice in choices:
            for index, condition in enumerate(choice.when):
                where = f"{choice.place}.when[{index}]"
                other = by_name.get(condition.choice)
                if other is None or other is choice:
                    hint = did_you_mean(condition.choice, set(by_name) - {choice.name})
                    self._report(f"{where}.parameter", quote(condition.choice), "the name of another choice", hint)
                    continue
                options = other.options
                for value_index, value in enumerate(condition.one_of):
                    if options is not None and value not in options:
                        hint = did_you_mean(value, options)
                        self._report(f"{where}.one_of[{value_index}]", quote(value), one_of(options), hint)
                if options is not None and (condition.at_least is not None or condition.at_most is not None):
                    bound = "at_least" if condition.at_least is not None else "at_most"
                    self._report(f"{where}.{bound}", f"a bound of {other.name}", f"one_of: {one_of(options)}")

    def _in_order(self, choices: Sequence[Choice]) -> list[Choice]:
        ordered: list[Choice] = []
        left = list(choices)
        known = {choice.name for choice in choices}
        while left:
            made = {choice.name for choice in ordered}
            ready = next((c for c in left if all(w.choice in made or w.choice not in known for w in c.when)), None)
            if ready is None:
                names = ", ".join(choice.name for choice in left)
                self._report(f"{left[0].place}.when[0]", f"conditions in a circle: {names}", "no circle")
                return ordered
            ordered.append(ready)
            left.remove(ready)
        return ordered

    def _fine(self, before: int) -> bool:
        return len(self.problems) == before

    def _report(self, path: str, found: str, expected: str, hint: str = "") -> None:
        self.problems.append(Problem(path, found, expected, hint))


def _is_set(message: Message, name: str) -> bool:
    value = getattr(message, name)
    return message.HasField(name) if isinstance(value, Message) else len(value) > 0


def metric_problems(message: tuning_pb2.SearchSpace, known: Iterable[str]) -> Iterator[Problem]:
    """Objectives that an evaluation does not report."""
    names = sorted(known)
    for index, objective in enumerate(message.objectives):
        if objective.metric not in names:
            path = f"objectives[{index}].metric"
            yield Problem(path, quote(objective.metric), one_of(names), did_you_mean(objective.metric, names))
