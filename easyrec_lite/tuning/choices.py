"""The choices that make a trial: what each may be, when it is made, and how it changes a config."""

from __future__ import annotations

import abc
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence

from google.protobuf import text_format
from google.protobuf.message import Message
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from easyrec_lite.config import ConfigError, Problem, did_you_mean, item_paths, quote
from easyrec_lite.protos import feature_pb2, pipeline_pb2, tuning_pb2

Value = int | float | str | bool
Values = Mapping[str, Value]


@dataclasses.dataclass(frozen=True)
class Condition:
    """What an earlier choice must be for a later one to be made."""

    choice: str
    one_of: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, values: Values) -> bool:
        """Whether it is; False where that choice was not made."""
        value = values.get(self.choice)
        if value is None or (self.one_of and text_of(value) not in self.one_of):
            return False
        if self.at_least is None and self.at_most is None:
            return True
        if isinstance(value, str):
            return False
        low = -float("inf") if self.at_least is None else self.at_least
        high = float("inf") if self.at_most is None else self.at_most
        return low <= value <= high


@dataclasses.dataclass(frozen=True)
class Choice(abc.ABC):
    """One choice of a trial.

    Attributes:
        name: what conditions, results and Optuna call it.
        when: all must hold for it to be made.
        place: path of its block in the file of the space.
    """

    name: str
    when: tuple[Condition, ...]
    place: str

    @property
    @abc.abstractmethod
    def distribution(self) -> BaseDistribution:
        """The values, for Optuna."""

    @property
    @abc.abstractmethod
    def samples(self) -> tuple[tuple[Value, str], ...]:
        """Values that tell whether the choice fits a config, each with the path of where it was written."""

    @property
    def options(self) -> tuple[str, ...] | None:
        """All values as text; None of a range."""
        return tuple(text_of(value) for value, _ in self.samples)

    def before(self, value: Value, config: pipeline_pb2.EasyRecConfig) -> Iterator[str]:
        """Overrides that come before those of all choices' `edits`, for these to name what they bring."""
        return iter(())

    def edits(self, value: Value, config: pipeline_pb2.EasyRecConfig) -> Iterator[str]:
        """Overrides `path=value` that make the choice.

        Args:
            value: one that the distribution has.
            config: the config so far, canonical but not completed.
        """
        return iter(())

    def after(self, value: Value, config: pipeline_pb2.EasyRecConfig) -> Iterator[str]:
        """Overrides that come after those of all choices' `edits`, such as those of groups that these may replace."""
        return iter(())


@dataclasses.dataclass(frozen=True)
class FieldChoice(Choice):
    """A value for one or more fields."""

    paths: tuple[str, ...]
    values: IntDistribution | FloatDistribution | tuple[str, ...]

    @property
    def distribution(self) -> BaseDistribution:
        """See Choice."""
        return CategoricalDistribution(self.values) if isinstance(self.values, tuple) else self.values

    @property
    def samples(self) -> tuple[tuple[Value, str], ...]:
        """See Choice."""
        if isinstance(self.values, tuple):
            return tuple((value, f"{self.place}.values[{index}]") for index, value in enumerate(self.values))
        block = "int_range" if isinstance(self.values, IntDistribution) else "float_range"
        return tuple((getattr(self.values, end), f"{self.place}.{block}.{end}") for end in ("low", "high"))

    @property
    def options(self) -> tuple[str, ...] | None:
        """See Choice."""
        return self.values if isinstance(self.values, tuple) else None

    def edits(self, value: Value, config: pipeline_pb2.EasyRecConfig) -> Iterator[str]:
        """See Choice."""
        yield from (f"{path}={text_of(value)}" for path in self.paths)


@dataclasses.dataclass(frozen=True)
class AlternativeChoice(Choice):
    """One of several ways to change a config."""

    alternatives: tuple[tuning_pb2.Alternative, ...]

    @property
    def distribution(self) -> BaseDistribution:
        """See Choice."""
        return CategoricalDistribution([alternative.name for alternative in self.alternatives])

    @property
    def samples(self) -> tuple[tuple[Value, str], ...]:
        """See Choice."""
        return tuple((a.name, f"{self.place}.alternatives[{index}]") for index, a in enumerate(self.alternatives))

    def edits(self, value: Value, config: pipeline_pb2.EasyRecConfig) -> Iterator[str]:
        """See Choice."""
        chosen = self._chosen(value)
        if chosen.HasField("model_config"):
            yield f"model_config={block_text(chosen.model_config)}"
        yield from chosen.edit

    def after(self, value: Value, config: pipeline_pb2.EasyRecConfig) -> Iterator[str]:
        """See Choice."""
        for name in self._chosen(value).leave_out:
            yield from without_feature(config, name)

    def _chosen(self, value: Value) -> tuning_pb2.Alternative:
        return next(alternative for alternative in self.alternatives if alternative.name == value)


@dataclasses.dataclass(frozen=True)
class OptionalFeature(Choice):
    """Whether a feature of the config stays in the groups that it stands in."""

    feature: str

    @property
    def distribution(self) -> BaseDistribution:
        """See Choice."""
        return CategoricalDistribution([True, False])

    @property
    def samples(self) -> tuple[tuple[Value, str], ...]:
        """See Choice."""
        return ((True, self.place), (False, self.place))

    def after(self, value: Value, config: pipeline_pb2.EasyRecConfig) -> Iterator[str]:
        """See Choice."""
        if not value:
            yield from without_feature(config, self.feature)


@dataclasses.dataclass(frozen=True)
class CandidateFeature(Choice):
    """Whether a feature that the config lacks comes in."""

    feature: feature_pb2.FeatureConfig
    groups: tuple[str, ...]

    @property
    def distribution(self) -> BaseDistribution:
        """See Choice."""
        return CategoricalDistribution([False, True])

    @property
    def samples(self) -> tuple[tuple[Value, str], ...]:
        """See Choice."""
        return ((False, self.place), (True, self.place))

    def before(self, value: Value, config: pipeline_pb2.EasyRecConfig) -> Iterator[str]:
        """See Choice."""
        if value:
            features = ", ".join(block_text(feature) for feature in [*config.features, self.feature])
            yield f"features=[{features}]"

    def after(self, value: Value, config: pipeline_pb2.EasyRecConfig) -> Iterator[str]:
        """See Choice."""
        if not value:
            return
        paths = group_paths(config)
        for group in self.groups:
            if group not in paths:
                hint = did_you_mean(group, paths)
                raise ConfigError(
                    [Problem(f"{self.place}.groups", quote(group), "the name of a group of the model", hint)]
                )
            path, names = paths[group]
            name = self.feature.feature_name or self.feature.input_names[0]
            yield _list_edit(path, [*names, name])


def text_of(value: Value) -> str:
    """The value as a config has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.12g}" if isinstance(value, float) else str(value)  # 0.3, not 0.30000000000000004


def split_edit(edit: str) -> tuple[str, str]:
    """Path and value of an override `path=value`; there may be '=' in the brackets of the path."""
    depth = 0
    for index, char in enumerate(edit):
        depth += {"[": 1, "]": -1}.get(char, 0)
        if char == "=" and depth <= 0:
            return edit[:index].strip(), edit[index + 1 :].strip()
    return edit, ""


def block_text(message: Message) -> str:
    """A block on one line."""
    return f"{{ {text_format.MessageToString(message, as_one_line=True, as_utf8=True)} }}"


def group_paths(config: pipeline_pb2.EasyRecConfig) -> dict[str, tuple[str, list[str]]]:
    """Path and content of the features' names of each group, by the group's name."""
    groups = config.model_config.feature_groups
    return {
        group.group_name: (f"{path}.feature_names", list(group.feature_names))
        for group, path in zip(groups, item_paths("model_config.feature_groups", groups), strict=True)
    }


def without_feature(config: pipeline_pb2.EasyRecConfig, name: str) -> Iterator[str]:
    """Overrides that take a feature out of every group and behaviour sequence.

    Raises:
        ConfigError: it is in none.
    """
    places = [*group_paths(config).values(), *_sequence_paths(config)]
    holding = [(path, names) for path, names in places if name in names]
    if not holding:
        known = sorted({member for _, names in places for member in names})
        raise ConfigError([Problem("", quote(name), "a feature that some group uses", did_you_mean(name, known))])
    for path, names in holding:
        yield _list_edit(path, [member for member in names if member != name])


def _sequence_paths(config: pipeline_pb2.EasyRecConfig) -> Iterator[tuple[str, list[str]]]:
    model = config.model_config
    blocks = list(
        zip(model.seq_att_groups, item_paths("model_config.seq_att_groups", model.seq_att_groups), strict=True)
    )
    for group, path in zip(
        model.feature_groups, item_paths("model_config.feature_groups", model.feature_groups), strict=True
    ):
        sequences = group.sequence_features
        blocks += zip(sequences, item_paths(f"{path}.sequence_features", sequences), strict=True)
    for block, path in blocks:
        for index, entry in enumerate(block.seq_att_map):
            for field in ("hist_seq", "aux_hist_seq"):
                yield f"{path}.seq_att_map[{index}].{field}", list(getattr(entry, field))


def _list_edit(path: str, names: Sequence[str]) -> str:
    return f"{path}={json.dumps(list(names), ensure_ascii=False)}"
