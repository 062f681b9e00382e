"""Flags that the commands share; EasyRec's names work too."""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from easyrec_lite.errors import UserError

# EasyRec takes any of these as a flag that overrides the config: --train_config.num_steps=100
_SECTIONS = (
    "train_config.",
    "eval_config.",
    "data_config.",
    "feature_config.",
    "feature_configs",
    "features",
    "model_config.",
    "export_config.",
)

_CHATTER = re.compile(rb"[IWE]0000 |WARNING: All log messages before absl")


def parser(program: str, description: str) -> argparse.ArgumentParser:
    """A parser with the flags that say which config, with which changes."""
    result = argparse.ArgumentParser(
        prog=f"python -m easyrec_lite.{program}",
        description=description,
        epilog="Any field can be overridden: --edit path=value, or EasyRec's --train_config.num_steps=100.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument("--config", "--pipeline_config_path", dest="config", metavar="FILE", help="the config file")
    result.add_argument("--model_dir", metavar="DIR", help="overrides model_dir of the config")
    result.add_argument(
        "--edit", action="append", default=[], metavar="PATH=VALUE", help="override a field; may be repeated"
    )
    result.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of yours that registers models; may be repeated",
    )
    result.add_argument("--edit_config_json", metavar="JSON", help='EasyRec\'s form of --edit: {"path": value, ...}')
    return result


def boolean(text: str) -> bool:
    """Reads `true`, `false` and the like, as EasyRec's flags take them."""
    if text.lower() in ("true", "1", "yes", "t"):
        return True
    if text.lower() in ("false", "0", "no", "f"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")


def positive(text: str) -> int:
    """Reads a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number of at least 1")
    return int(text)


def parse(arguments: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Parsed flags, and the overrides `path=value` that they hold.

    Raises:
        UserError: a flag that nobody knows, or JSON that can't be read.
    """
    namespace, rest = arguments.parse_known_args(argv)
    overrides = list(namespace.edit)
    unknown = []
    place = 0
    while place < len(rest):
        word = rest[place]
        name = word[2:]
        if not (word.startswith("--") and name.startswith(_SECTIONS)):
            unknown.append(word)
        elif "=" in name and not name.partition("=")[0].endswith("["):
            overrides.append(name)
        elif place + 1 < len(rest):
            place += 1
            overrides.append(f"{name}={rest[place]}")
        else:
            unknown.append(word)
        place += 1
    if unknown:
        arguments.error(f"unknown: {' '.join(unknown)}")
    load_tensorflow()
    for module in namespace.imports:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise  # the module is there; what it imports is not
            raise UserError(f"--import: found no module {module!r}; expected one that Python can import") from None
    if namespace.edit_config_json:
        overrides += edits_from_json(namespace.edit_config_json, "--edit_config_json")
    if namespace.model_dir:
        overrides.append(f"model_dir={json.dumps(namespace.model_dir)}")
    return namespace, overrides


def load_tensorflow() -> None:
    """Imports TensorFlow without what it says of devices it doesn't find; a flag that is wrong was told before.

    Its first lines are written before it knows of any log level, so they are caught at the file descriptor.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    logging.getLogger("tensorflow").addFilter(_is_news)
    before = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            import tensorflow

            tensorflow.config.list_physical_devices()
            logging.getLogger("tensorflow").setLevel(logging.WARNING)  # in notebooks it tells of each file it writes
        finally:
            os.dup2(before, 2)
            os.close(before)
            caught.seek(0)
            for line in caught:
                if not _CHATTER.match(line):
                    os.write(2, line)


def _is_news(record: logging.LogRecord) -> bool:
    """Not so that a function is traced for each model anew, which a process with several models does."""
    return "triggered tf.function retracing" not in str(record.msg)


def edits_from_json(text: str, place: str) -> list[str]:
    """`path=value` for each entry of a JSON object.

    Raises:
        UserError: it is no JSON object.
    """
    try:
        edits = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f'{place}: found text that is no JSON ({error}); expected {{"path": value, ...}}') from None
    if not isinstance(edits, dict):
        raise UserError(f'{place}: found {text[:50]!r}; expected a JSON object {{"path": value, ...}}')
    return [f"{path}={value if isinstance(value, str) else json.dumps(value)}" for path, value in edits.items()]


def edits_from_file(path: str) -> list[str]:
    """`path=value` for each entry of EasyRec's file of tuned parameters, `{"param": {path: value}}`.

    Raises:
        UserError: the file is not there or holds something else.
    """
    try:
        content = Path(path).read_text()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}); expected a JSON file") from None
    try:
        parameters = json.loads(content)["param"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f'{path}: expected JSON of the form {{"param": {{"path": value, ...}}}}') from None
    return edits_from_json(json.dumps(parameters), path)


def config_in(model_dir: str | None) -> str | None:
    """The completed config that training left in a model directory, for commands that are told no other."""
    path = Path(model_dir) / "pipeline.config" if model_dir else None
    return str(path) if path is not None and path.exists() else None


def path_list(values: Sequence[str] | None) -> str | None:
    """Paths given by a flag that may be repeated, as the comma list that a config holds."""
    return ",".join(values) if values else None
