"""Configs as Python objects: read, looked at, changed, checked, compared, written."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from google.protobuf import json_format, text_format
from google.protobuf.message import Message

from easyrec_lite import _runs
from easyrec_lite._html import element
from easyrec_lite._insight.comparison import config_differences
from easyrec_lite._notebook import html
from easyrec_lite.checkpoints import atomic_write_text
from easyrec_lite.config import (
    ERROR,
    AnyTarget,
    ConfigError,
    PipelineConfig,
    Problem,
    StructTarget,
    effective_name,
    find,
    parse_path,
    read_config,
    to_text,
)
from easyrec_lite.config import load_config as load_pipeline
from easyrec_lite.config.overrides import override
from easyrec_lite.config.paths import Filter, Span
from easyrec_lite.protos import pipeline_pb2

# Stands for a model_dir that is not said, while the config is checked.
_UNSET = "model_dir_is_not_set"


class Problems(Sequence[Problem]):
    """What is wrong with a config; true if anything is."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self._problems = list(problems)

    @property
    def errors(self) -> list[Problem]:
        """Those that stop a run."""
        return [problem for problem in self._problems if problem.severity is ERROR]

    @property
    def frame(self) -> pd.DataFrame:
        """One row a problem: severity, place, path, found, expected, hint."""
        rows = [(p.severity.value, _place(p), p.path, p.found, p.expected, p.hint) for p in self._problems]
        return pd.DataFrame(rows, columns=["severity", "place", "path", "found", "expected", "hint"])

    def raise_errors(self) -> None:
        """Raises ConfigError if any of them stops a run."""
        if self.errors:
            raise ConfigError(self._problems)

    def __len__(self) -> int:
        return len(self._problems)

    def __getitem__(self, place: Any) -> Any:
        return self._problems[place]

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._problems)

    def _repr_html_(self) -> str:
        items = [
            element(
                "li",
                element("b", p.severity.value, class_=p.severity.value),
                " ",
                element("code", p.path),
                " ",
                html.dim(_place(p)),
                element("div", f"found {p.found}" + (f", expected {p.expected}" if p.expected else "")),
                element("div", p.hint, class_="dim") if p.hint else None,
            )
            for p in self._problems
        ]
        return html.block(html.heading(self._title()), element("ul", *items) if items else None)

    def __repr__(self) -> str:
        return "\n".join([self._title(), *(f"  {problem}" for problem in self._problems)])

    def _title(self) -> str:
        if not self._problems:
            return "Nothing is wrong with this config"
        errors, warnings = len(self.errors), len(self._problems) - len(self.errors)
        parts = [f"{errors} error{'s' * (errors != 1)}"] if errors else []
        return ", ".join([*parts, *([f"{warnings} warning{'s' * (warnings != 1)}"] if warnings else [])])


class Config:
    """A config to work with: canonical and complete, but perhaps not yet right; `check` says what is wrong.

        config = load_config("deepfm.config")
        config["features[user_id].embedding_dim"] = 8
        config.edit("train_config.num_steps=100", "features[*].embedding_dim=16")
        config.check()

    Paths are those of errors and of `--edit`. `message` is the protobuf message itself, for what paths can't do, such
    as adding a feature: `config.message.features.add(...)`.

    Args:
        pipeline: what it starts from; copied.
        name: for displays and comparisons.

    Attributes:
        message: the EasyRecConfig; changing it changes the config.
        edits: those made by path, as `--edit` takes them.
        name: for displays and comparisons.
    """

    def __init__(self, pipeline: PipelineConfig, name: str = "config") -> None:
        self.message = pipeline_pb2.EasyRecConfig()
        self.message.CopyFrom(pipeline.message)
        if self.message.model_dir == _UNSET:
            self.message.ClearField("model_dir")
        self.edits: list[str] = []
        self.name = name
        self._places = copy.deepcopy(pipeline.places)

    # ---- reading and changing

    def __getitem__(self, path: str) -> Any:
        """The value of a field; of a path with `[*]`, a slice or a filter, the list of values.

        Raises:
            ConfigError: the path leads nowhere.
        """
        values = [_value(target) for target in find(self.message, path)]
        return values if _leads_to_several(path) else values[0]

    def __setitem__(self, path: str, value: object) -> None:
        """Sets each field that the path leads to.

        Args:
            path: as in `--edit`.
            value: a number, text, bool, list, a mapping or message for a block; enums by name.

        Raises:
            ConfigError: the path leads nowhere, or the value does not fit; then nothing is changed.
        """
        self._apply([f"{path}={self._written(path, value)}"])

    def edit(self, *edits: str) -> Config:
        """Applies edits `path=value`, as `--edit` takes them; returns the config.

        Raises:
            ConfigError: with all that is wrong with them; then nothing is changed.
        """
        self._apply(edits)
        return self

    def _apply(self, edits: Sequence[str]) -> None:
        changed, places = pipeline_pb2.EasyRecConfig(), copy.deepcopy(self._places)
        changed.CopyFrom(self.message)
        if problems := override(changed, places, edits):
            raise ConfigError(problems)
        self.message.CopyFrom(changed)
        self._places = places
        self.edits += edits

    def _written(self, path: str, value: object) -> str:
        """A value as overrides write it."""
        if isinstance(value, Message):
            return f"{{ {text_format.MessageToString(value, as_one_line=True)} }}"
        target = find(self.message, path)
        if isinstance(value, dict) and target and not isinstance(target[0], StructTarget):
            block = type(target[0].get())()
            if isinstance(block, Message) and block.DESCRIPTOR.full_name != "google.protobuf.Struct":
                try:
                    json_format.ParseDict(value, block)
                except json_format.ParseError as error:
                    raise ConfigError(
                        [Problem(path, f"{value!r} ({error})", f"fields of {block.DESCRIPTOR.name}")]
                    ) from None
                return self._written(path, block)
        if isinstance(value, str) and value.replace("_", "a").replace(".", "a").isalnum():
            return value  # enums too
        if hasattr(value, "item"):  # NumPy's numbers
            value = value.item()
        return json.dumps(value, ensure_ascii=False)

    # ---- looking at it

    def check(self) -> Problems:
        """All problems, those of features, model, optimizers and inputs included; nothing is raised."""
        return self._checked()[1]

    def checked(self) -> PipelineConfig:
        """The config as a run takes it.

        Raises:
            ConfigError: with all problems.
        """
        pipeline, problems = self._checked()
        problems.raise_errors()
        assert pipeline is not None
        return PipelineConfig(pipeline.message, tuple(problems), self._places)

    def _checked(self) -> tuple[PipelineConfig | None, Problems]:
        here = PipelineConfig(self.message, (), self._places)
        try:
            message = pipeline_pb2.EasyRecConfig()
            message.CopyFrom(self.message)
            if not message.HasField("model_dir"):
                message.model_dir = _UNSET
            pipeline = load_pipeline(message=message, checks=_runs.CHECKS)
        except ConfigError as error:
            return None, Problems([problem.at(here.locate(problem.path)) for problem in error.problems])
        return pipeline, Problems([problem.at(here.locate(problem.path)) for problem in pipeline.warnings])

    def copy(self, name: str | None = None) -> Config:
        """A config of its own, perhaps under another name."""
        other = Config(PipelineConfig(self.message, (), self._places), name or self.name)
        other.edits = list(self.edits)
        return other

    def diff(self, other: Config) -> pd.DataFrame:
        """The fields in which another config differs, but for `model_dir`: `path`, then one column a config."""
        second = other.name if other.name != self.name else f"{other.name} (2)"
        return config_differences({self.name: self.message, second: other.message}, ("model_dir",))

    def to_text(self) -> str:
        """The config in protobuf text format, secrets as references only."""
        return to_text(self.message)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the text to a file, whole or not at all; returns the path."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(target, self.to_text())
        return target

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.message == other.message

    __hash__ = None  # type: ignore[assignment]

    def _summary(self) -> list[tuple[str, str]]:
        message, data = self.message, self.message.data_config
        groups = [group.group_name for group in message.model_config.feature_groups]
        groups += [group.group_name for group in message.model_config.seq_att_groups]
        kafka = message.kafka_train_input
        topic = f"topic {kafka.topic}" if message.HasField("kafka_train_input") else ""
        length = f"{message.train_config.num_steps:,} steps" if message.train_config.num_steps else ""
        length = length or (f"{data.num_epochs} epoch(s)" if data.num_epochs else "without end")
        rows = [
            ("model", message.model_config.model_class),
            ("features", f"{len(message.features)}: {', '.join(effective_name(f) or '?' for f in message.features)}"),
            ("groups", ", ".join(groups)),
            ("labels", ", ".join(data.label_fields)),
            ("training rows", message.train_input_path or topic),
            ("evaluation rows", message.eval_input_path),
            ("training", f"batches of {data.batch_size:,}, {length}"),
            ("edits", "; ".join(self.edits)),
        ]
        return [(name, value) for name, value in rows if value]

    def _repr_html_(self) -> str:
        return html.block(
            html.heading(self.name),
            element("table", *(element("tr", element("th", name), element("td", v)) for name, v in self._summary())),
            html.details("text", element("pre", self.to_text())),
        )

    def __repr__(self) -> str:
        return "\n".join([f"Config {self.name!r}", *(f"  {name}: {value}" for name, value in self._summary())])


def load_config(
    path: str | os.PathLike[str] | None = None,
    edits: Sequence[str] = (),
    *,
    text: str | None = None,
    name: str | None = None,
) -> Config:
    """Reads a config, with edits "path=value", and checks all of it.

    Two fields that the commands need may be left out: `model_dir`, in whose place an experiment makes a temporary
    folder, and `data_config.input_type`, which frames don't need and files ending in `.parquet` neither.

    Args:
        path: a file in protobuf text format or JSON.
        edits: as `--edit` takes them.
        text: the config itself, instead of a file.
        name: for displays and comparisons; by default that of the file.

    Raises:
        ConfigError: all problems at once.
    """
    message, _, _ = read_config(path, text=text)
    defaults = [] if message.HasField("model_dir") else [f"model_dir={_UNSET}"]
    defaults += [] if message.data_config.HasField("input_type") else ["data_config.input_type=CSVInput"]
    pipeline = load_pipeline(path, [*defaults, *edits], _runs.CHECKS, text=text)
    config = Config(pipeline, name or (Path(path).stem if path is not None else "config"))
    config.edits = list(edits)
    return config


def as_config(config: Config | str | os.PathLike[str]) -> Config:
    """A config as it is; or read from a path, or from its text, which has braces or several lines."""
    if isinstance(config, Config):
        return config
    if isinstance(config, str) and ("\n" in config or "{" in config):
        return load_config(text=config)
    return load_config(config)


def _place(problem: Problem) -> str:
    return ":".join(str(part) for part in (problem.file, problem.line, problem.column) if part is not None)


def _leads_to_several(path: str) -> bool:
    """Whether a path means any number of places: it has a slice, `[*]` or a filter."""
    steps = parse_path(path).steps
    return any(isinstance(subscript, Span | Filter) for step in steps for subscript in step.subscripts)


def _value(target: AnyTarget) -> Any:
    """The value of a field; of an enum its name."""
    value = target.get()
    enum = target.field.enum_type if not isinstance(target, StructTarget) else None
    if enum is None:
        return value
    names = enum.values_by_number
    return [names[number].name for number in value] if isinstance(value, list) else names[value].name
