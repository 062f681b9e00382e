from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from easyrec_lite.config import read_config
from easyrec_lite.protos import options_pb2

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
EXAMPLES = [
    pytest.param(match[1], id=f"{page.relative_to(ROOT)}:{page.read_text()[: match.start()].count(chr(10)) + 1}")
    for page in PAGES
    for match in re.finditer(r"^```protobuf\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
]


def set_fields(message: Message) -> Iterator[FieldDescriptor]:
    """Every field that the message or a message inside it sets."""
    for field, value in message.ListFields():
        yield field
        if field.message_type is not None and field.message_type.full_name != "google.protobuf.Struct":
            for inner in value if isinstance(value, Sequence) else [value]:
                yield from set_fields(inner)


@pytest.mark.parametrize("example", EXAMPLES)
def test_config_examples_use_what_is_implemented(example: str) -> None:
    config, _, problems = read_config(text=example)
    assert problems == []
    supports = {field.full_name: field.GetOptions().Extensions[options_pb2.support] for field in set_fields(config)}
    assert supports
    assert {name for name, support in supports.items() if support != options_pb2.SUPPORTED} == set()


def test_commands_that_are_described_exist() -> None:
    texts = [path.read_text() for path in [*PAGES, ROOT / "Makefile", ROOT / "tests" / "wheel_smoke.sh"]]
    modules = set(re.findall(r"-m ((?:easyrec_lite|tools)\.[\w.]+)|\brun (easyrec_lite\.\w+)", "\n".join(texts)))
    names = {name for pair in modules for name in pair if name}
    assert names
    assert [name for name in sorted(names) if importlib.util.find_spec(name) is None] == []


def test_make_targets_that_are_described_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {name for page in PAGES for name in re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text())}
    assert targets
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
