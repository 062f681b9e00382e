"""Search spaces: read from their file, checked, and turned into overrides of a config."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from easyrec_lite.config import ConfigError, PipelineConfig, Problem, apply_overrides, find, load_config, read_config
from easyrec_lite.config.binding import Node, bind
from easyrec_lite.config.canonical import canonicalize
from easyrec_lite.config.loading import Check
from easyrec_lite.config.syntax import parse_text
from easyrec_lite.config.targets import locate
from easyrec_lite.protos import pipeline_pb2, tuning_pb2
from easyrec_lite.tuning.choices import Choice, FieldChoice, Value, Values, split_edit
from easyrec_lite.tuning.space_checks import SpaceReader

# What a trial costs: known by these names beside the metrics of its evaluation.
COSTS = ("parameters", "model_bytes", "latency_ms")
TRAIN_SECONDS = "train_seconds"


@dataclasses.dataclass(frozen=True)
class Objective:
    """Something to make large or small.

    Attributes:
        metric: its name in an evaluation, or one of COSTS or TRAIN_SECONDS.
        maximize: whether more is better.
        best: of several evaluations the best one counts, not the last.
    """

    metric: str
    maximize: bool = True
    best: bool = False


@dataclasses.dataclass(frozen=True)
class Space:
    """A search space.

    Attributes:
        choices: in the order in which they are made: each after those that its conditions name.
        objectives: one or more.
        message: as it was written.
    """

    choices: tuple[Choice, ...]
    objectives: tuple[Objective, ...]
    message: tuning_pb2.SearchSpace
    places: Node = dataclasses.field(default_factory=Node, repr=False)

    @property
    def limits(self) -> dict[str, float]:
        """Upper bounds of what a trial may cost, by the names in COSTS."""
        limits = self.message.limits
        return {name: getattr(limits, name) for name in COSTS if limits.HasField(name)}

    @property
    def costs(self) -> tuple[str, ...]:
        """Which costs must be known of each trial."""
        wanted = {objective.metric for objective in self.objectives} | set(self.limits)
        return tuple(name for name in COSTS if name in wanted)

    def located(self, problem: Problem) -> Problem:
        """The problem with the line of its path."""
        return problem.at(locate(self.message, self.places, problem.path))


def read_space(path: str | os.PathLike[str] | None = None, *, text: str | None = None) -> Space:
    """Reads a search space in protobuf text format.

    Args:
        path: the file; with `text` only its name.
        text: the space itself.

    Raises:
        ConfigError: all problems, with their lines.
    """
    name = os.fspath(path) if path is not None else "<space>"
    if text is None:
        text = _read(name)
    block, problems = parse_text(text, name)
    message = tuning_pb2.SearchSpace()
    root = bind(block, message, problems)
    reader = SpaceReader(message, {problem.path for problem in problems})
    choices = reader.choices()
    reader.check_rest()
    found = [*problems, *(p.at(locate(message, root, p.path)) for p in reader.problems)]
    if found:
        raise ConfigError(sorted(found, key=lambda problem: (problem.line or 0, problem.column or 0)))
    objectives = tuple(
        Objective(o.metric, o.direction == tuning_pb2.MAXIMIZE, o.take == tuning_pb2.BEST) for o in message.objectives
    )
    return Space(tuple(choices), objectives, message, root)


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = Problem("", f"no readable file: {reason}", "a search space", file=name, line=1, column=1)
        raise ConfigError([problem]) from None


class ChoiceError(ConfigError):
    """A choice that can't be made in the config as the others leave it."""

    def __init__(self, choice: Choice, problems: Iterable[Problem]) -> None:
        super().__init__(problems)
        self.choice = choice


class BaseConfig:
    """The config that trials are made from.

    Args:
        path: its file.
        overrides: changes that hold for every trial, `path=value`.
        checks: of complete configs, see `load_config`.

    Raises:
        ConfigError: the config itself has problems.
    """

    def __init__(
        self, path: str | os.PathLike[str], overrides: Sequence[str] = (), checks: Sequence[Check] = ()
    ) -> None:
        self.path = os.fspath(path)
        self._overrides, self._checks = tuple(overrides), tuple(checks)
        self.config = load_config(path, overrides, checks)
        # As it was written, so that a default which follows another field still follows it when that is changed.
        self._written, root, _ = read_config(path)
        canonicalize(self._written, root)
        apply_overrides(self._written, overrides)
        canonicalize(self._written, Node())

    def edits(self, space: Space, values: Values) -> list[str]:
        """The overrides `path=value` of a trial.

        Args:
            space: whose choices these are.
            values: what was chosen, by the names of the choices; those that were not made are left out.

        Raises:
            ChoiceError: the choices don't go together, or don't go with the config.
        """
        return made(self._written, space, values)[1]

    def written(self, space: Space, values: Values) -> pipeline_pb2.EasyRecConfig:
        """The config of a trial as a person would write it: without the defaults that complete it; see `edits`."""
        return made(self._written, space, values)[0]

    def load(self, edits: Sequence[str]) -> PipelineConfig:
        """The checked config of a trial.

        Raises:
            ConfigError: with all that is wrong.
        """
        return load_config(self.path, [*self._overrides, *edits], self._checks)

    def check(self, space: Space) -> None:
        """Refuses a space whose choices can't be made in this config, whatever the others are.

        Raises:
            ConfigError: with the lines of the space.
        """
        problems: dict[tuple[str, str], Problem] = {}
        for choice in space.choices:
            for value, place in choice.samples:
                for problem in self._problems_of(space, choice, value):
                    found = self._in_space(choice, place, problem)
                    problems.setdefault((found.path, found.found), space.located(found))
        if problems:
            raise ConfigError(sorted(problems.values(), key=lambda p: (p.line or 0, p.column or 0)))

    def _problems_of(self, space: Space, choice: Choice, value: Value) -> list[Problem]:
        """Why a choice can't be made with nothing but what it depends on, nor with the first of every other."""
        problems: list[Problem] = []
        for values in _with(space, choice, value):
            try:
                self.edits(space, values)
            except ChoiceError as error:
                problems = problems or (error.problems if error.choice is choice else [])
            else:
                return []
        return problems

    def _in_space(self, choice: Choice, place: str, problem: Problem) -> Problem:
        """A problem of a trial's config as one of the space: of a path, or of a value."""
        if problem.path.startswith(choice.place):
            return problem
        if isinstance(choice, FieldChoice) and problem.path in choice.paths and not self._has(problem.path):
            path = f"{choice.place}.path[{choice.paths.index(problem.path)}]"
            return Problem(path, problem.found, problem.expected, problem.hint)
        found = f"{problem.found} for {problem.path}" if problem.path else problem.found
        return Problem(place, found, problem.expected, problem.hint)

    def _has(self, path: str) -> bool:
        try:
            return bool(find(self._written, path))
        except ConfigError:
            return False


def made(
    written: pipeline_pb2.EasyRecConfig, space: Space, values: Values
) -> tuple[pipeline_pb2.EasyRecConfig, list[str]]:
    """A canonical, not completed config with the choices made in it, and the overrides that make them.

    Raises:
        ChoiceError: a choice can't be made.
    """
    config = pipeline_pb2.EasyRecConfig()
    config.CopyFrom(written)
    edits: dict[str, str] = {}
    for step in ("before", "edits", "after"):
        for choice in space.choices:
            if choice.name not in values:
                continue
            try:
                for edit in getattr(choice, step)(values[choice.name], config):
                    apply_overrides(config, [edit])
                    canonicalize(config, Node())
                    path = split_edit(edit)[0]
                    edits.pop(path, None)  # set again: the last one counts
                    edits[path] = edit
            except ConfigError as error:
                raise ChoiceError(choice, error.problems) from None
    return config, list(edits.values())


def _with(space: Space, choice: Choice, value: Value) -> Iterator[dict[str, Value]]:
    """Values with which a choice is made: first only those of its conditions, then those of all choices."""
    by_name = {other.name: other for other in space.choices}
    wanted: dict[str, Value] = {choice.name: value}
    waiting = [choice]
    while waiting:
        for condition in waiting.pop().when:
            other = by_name[condition.choice]
            if other.name not in wanted:
                fitting = (v for v, _ in other.samples if condition.holds({other.name: v}))
                wanted[other.name] = next(fitting, other.samples[0][0])
                waiting.append(other)
    yield {other.name: wanted[other.name] for other in space.choices if other.name in wanted}
    values: dict[str, Value] = {}
    for other in space.choices:
        if other.name in wanted or all(condition.holds(values) for condition in other.when):
            values[other.name] = wanted.get(other.name, other.samples[0][0])
    yield values
