"""Secrets stay out of configs: a field holds `env:NAME` or `file:PATH`, which is resolved when it is used."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from easyrec_lite.config import schema
from easyrec_lite.config.problems import ConfigError, Problem

M = TypeVar("M", bound=Message)

_REFERENCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)")
# Settings of Kafka clients that carry a secret, in lists of "key=value".
_SECRET_SETTING = re.compile(
    r"(?P<key>[\w.]*(password|passwd|secret|token|jaas\.config|key\.pem)[\w.]*)\s*=\s*(?P<value>.*)"
)


def is_reference(value: str) -> bool:
    """Whether `value` names a secret instead of being one."""
    return _REFERENCE.fullmatch(value) is not None


def resolve_secret(reference: str, path: str = "") -> str:
    """The secret that a reference names.

    Args:
        reference: `env:NAME` for an environment variable, `file:PATH` for the content of a file, without the line
            break at its end.
        path: the field, for errors.

    Raises:
        ConfigError: it is no reference, or names nothing.
    """
    kind, _, name = reference.partition(":")
    if not is_reference(reference):
        raise ConfigError([Problem(path, "a literal secret", "env:NAME or file:PATH")])
    if kind == "env":
        if name not in os.environ:
            raise ConfigError([Problem(path, f"env:{name}, which is not set", f"the environment variable {name}")])
        return os.environ[name]
    try:
        return Path(name).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(path, f"file:{name}, which cannot be read: {error}", "a text file")]) from error


def literal_secrets(message: Message) -> list[Problem]:
    """A problem for each secret that stands in the config itself; the secret is not repeated in it."""
    problems = []
    for path, inner in schema.walk(message):
        for field, value in inner.ListFields():
            where = schema.join(path, field.name)
            expected = f"a reference: env:{field.name.upper()} or file:PATH"
            if schema.is_secret(field) and value and not is_reference(value):
                problems.append(Problem(where, "a literal secret", expected))
            for index, setting in enumerate(_settings(field, value)):
                match = _SECRET_SETTING.fullmatch(setting)
                if match and not is_reference(match["value"]):
                    expected = f"a reference: {match['key']}=env:NAME or {match['key']}=file:PATH"
                    problems.append(Problem(f"{where}[{index}]", "a literal secret", expected))
    return problems


def redact(message: M) -> M:
    """A copy in which each literal secret is replaced by a reference that has its field's name."""
    copy = type(message)()
    copy.CopyFrom(message)
    _redact(copy)
    return copy


def _redact(message: Message) -> None:
    for field, value in message.ListFields():
        if schema.is_secret(field) and not is_reference(value):
            setattr(message, field.name, f"env:{field.name.upper()}")
        for index, setting in enumerate(_settings(field, value)):
            match = _SECRET_SETTING.fullmatch(setting)
            if match and not is_reference(match["value"]):
                name = re.sub(r"\W", "_", match["key"]).upper()
                value[index] = f"{match['key']}=env:{name}"
    for _, _, child in schema.children(message):
        _redact(child)


def _settings(field: FieldDescriptor, value: Any) -> list[str]:
    """The "key=value" lines of a Kafka client's settings."""
    return list(value) if field.name in ("config_global", "config_topic") and field.is_repeated else []
