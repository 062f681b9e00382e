"""load_config: from a file to a checked, canonical and complete config."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from easyrec_lite.config.binding import Node, bind
from easyrec_lite.config.canonical import canonicalize
from easyrec_lite.config.completion import complete
from easyrec_lite.config.feature_checks import check_features
from easyrec_lite.config.field_checks import check_blocks, check_fields
from easyrec_lite.config.json_syntax import parse_json
from easyrec_lite.config.overrides import Overrides, override
from easyrec_lite.config.paths import canonical_text
from easyrec_lite.config.problems import ERROR, ConfigError, Location, Problem
from easyrec_lite.config.reference_checks import check_references
from easyrec_lite.config.secrets import literal_secrets
from easyrec_lite.config.syntax import parse_text
from easyrec_lite.config.targets import locate
from easyrec_lite.protos import pipeline_pb2

Check = Callable[[pipeline_pb2.EasyRecConfig], Iterable[Problem]]


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """A config that can be used.

    Attributes:
        message: the config in its canonical form, defaults completed.
        warnings: what is odd about it, but does not stop a run.
    """

    message: pipeline_pb2.EasyRecConfig
    warnings: tuple[Problem, ...] = ()
    places: Node = dataclasses.field(default_factory=Node, repr=False)

    def locate(self, path: str) -> Location | None:
        """Where the field of a path was written, or the block around it; None without a file."""
        return locate(self.message, self.places, path)


def load_config(
    path: str | os.PathLike[str] | None = None,
    overrides: Overrides = (),
    checks: Sequence[Check] = (),
    *,
    text: str | None = None,
    message: pipeline_pb2.EasyRecConfig | None = None,
) -> PipelineConfig:
    """Reads, overrides, completes and checks a config.

    Args:
        path: a file in protobuf text format, or in JSON if its name ends in `.json`. With `text` only its name.
        overrides: "path=value" texts, or {path: value}; see `apply_overrides`.
        checks: further checks of the complete config, such as those of its model. They run on a config whose fields
            are all readable and supported.
        text: the config itself instead of a file; JSON if it begins with `{`.
        message: a config built in Python instead of a file; it is copied.

    Raises:
        ConfigError: with all problems found, in the order of the file.
    """
    if message is not None:
        config, root = pipeline_pb2.EasyRecConfig(), Node()
        problems: list[Problem] = []
        config.CopyFrom(message)
    else:
        config, root, problems = read_config(path, text=text)
    unreadable = bool(problems)
    problems += canonicalize(config, root)
    if overrides:
        found = override(config, root, overrides)
        unreadable |= bool(found)
        problems += found + canonicalize(config, root)
    problems += check_fields(config, root)
    complete(config)
    problems += literal_secrets(config)
    if not unreadable:
        problems += check_blocks(config)
        problems += check_features(config)
        problems += check_references(config)
        if not any(problem.severity is ERROR for problem in problems):
            for check in checks:
                problems += check(config)
    placed = _in_order(problem.at(locate(config, root, problem.path)) for problem in problems)
    if any(problem.severity is ERROR for problem in placed):
        raise ConfigError(placed)
    return PipelineConfig(config, tuple(placed), root)


def stored_config(text: str) -> pipeline_pb2.EasyRecConfig:
    """The config that a run kept, as `to_text` wrote it; unchecked, for a file that it names may be gone since."""
    config, root, _ = read_config(text=text)
    canonicalize(config, root)
    complete(config)
    return config


def read_config(
    path: str | os.PathLike[str] | None = None, *, text: str | None = None
) -> tuple[pipeline_pb2.EasyRecConfig, Node, list[Problem]]:
    """Reads a config as it is written: the message, the places of its fields, and what could not be read.

    Raises:
        ConfigError: there is no text to read.
    """
    name = os.fspath(path) if path is not None else "<text>"
    if text is None:
        if path is None:
            raise TypeError("load_config needs a path, text= or message=")
        text = _read(name)
        is_json = name.endswith(".json")
    else:
        is_json = text.lstrip().startswith("{")
    block, problems = parse_json(text, name) if is_json else parse_text(text, name)
    config = pipeline_pb2.EasyRecConfig()
    root = bind(block, config, problems)
    return config, root, [dataclasses.replace(problem, path=canonical_text(problem.path)) for problem in problems]


def _read(name: str) -> str:
    try:
        with open(name, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            [Problem("", f"no readable file: {reason}", "a config", file=name, line=1, column=1)]
        ) from None
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        found = f"the byte 0x{data[error.start]:02x}, which is no UTF-8"
        raise ConfigError([Problem("", found, "text in UTF-8", file=name, line=line, column=column)]) from None


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Without repetitions, in the order of the file; what has no place comes last."""

    def key(problem: Problem) -> tuple[bool, str, int, int]:
        return problem.line is None, problem.file or "", problem.line or 0, problem.column or 0

    return sorted(_unique(problems), key=key)


def _unique(problems: Iterable[Problem]) -> Iterator[Problem]:
    seen: set[tuple[object, ...]] = set()
    for problem in problems:
        same = (problem.path, problem.found, problem.file, problem.line, problem.column)
        if same not in seen:
            seen.add(same)
            yield problem
