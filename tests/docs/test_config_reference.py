from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor
from markdown import markdown

from easyrec_lite.protos import pipeline_pb2
from tools.docs.config_reference import PROTOS, FileDoc, anchor, in_reading_order, read_schema, render

SCHEMA = """
syntax = "proto2";
package easyrec_lite;
import "easyrec_lite/protos/options.proto";
import "google/protobuf/struct.proto";

enum Colour {
  // The first.
  RED = 0;
  BLUE = 7 [(value_support) = PLANNED, (value_advice) = "use RED"];
}

// A tower
// of layers.
message Tower {
  message Inner {
    optional bool flag = 1 [default = true];
  }
  enum Kind { TALL = 0; }
  // Units of a layer, a|b.
  repeated uint32 units = 1 [(required) = true];
  optional string separator = 2 [default = "|"];  // Between values, `|` or |.
  optional string control = 3 [default = "\\001", (support) = NO_EFFECT];
  optional Inner inner = 4 [(support) = PLANNED];
  optional string password = 5 [(secret) = true, (support) = PLATFORM, (advice) = "use files"];
  oneof choice {
    Colour colour = 6;
    google.protobuf.Struct anything = 7;
  }
}

message Empty {}
"""
SECRET = "A secret: give a reference, env:NAME or file:PATH. Use files."


@pytest.fixture
def page(tmp_path: Path) -> str:
    shutil.copy(PROTOS / "options.proto", tmp_path)
    (tmp_path / "small.proto").write_text(SCHEMA)
    return render(read_schema(tmp_path), root="Tower")


def row(page: str, name: str) -> list[str]:
    """The cells of the only row for a field or value, as a reader sees them."""
    rows = re.findall(r"<tr>(.*?)</tr>", markdown(page, extensions=["tables", "attr_list"]), flags=re.DOTALL)
    cells = [[text(cell) for cell in re.findall(r"<td>(.*?)</td>", row, flags=re.DOTALL)] for row in rows]
    (found,) = [row for row in cells if row and row[0].rstrip("*") == name]
    return found


def text(cell: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", cell))


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("units", ["units*", "uint32", "", "supported", "Required. Units of a layer, a|b."]),
        ("separator", ["separator", "string", '"|"', "supported", "Between values, | or |."]),
        ("control", ["control", "string", r'"\001"', "no effect", ""]),
        ("inner", ["inner", "Tower.Inner", "", "planned", ""]),
        ("flag", ["flag", "bool", "true", "supported", ""]),
        ("password", ["password", "string", "", "other platform", SECRET]),
        ("colour", ["colour", "Colour", "", "supported", "One of choice."]),
        ("anything", ["anything", "google.protobuf.Struct", "", "supported", "One of choice."]),
        ("RED", ["RED", "supported", "The first."]),
        ("BLUE", ["BLUE", "planned", "Use RED."]),
        ("TALL", ["TALL", "supported", ""]),
    ],
)
def test_every_property_of_a_field_is_shown(page: str, name: str, cells: list[str]) -> None:
    assert row(page, name) == cells


def test_messages_have_headings_and_comments(page: str) -> None:
    assert "### Tower { #tower }\n\nA tower of layers.\n" in page
    assert "### Tower.Inner { #tower-inner }" in page
    assert "### Empty { #empty }\n\nNo fields: naming it is enough.\n" in page


def test_what_only_refused_fields_lead_to_comes_last(page: str) -> None:
    usable, _, rest = page.partition("## Not usable yet\n")
    assert re.findall("^### ([^ ]+)", usable, flags=re.MULTILINE) == ["Tower", "Colour"]
    assert re.findall("^### ([^ ]+)", rest, flags=re.MULTILINE) == ["Tower.Inner", "Tower.Kind", "Empty"]


def test_options_are_not_part_of_the_language(page: str) -> None:
    assert "options.proto" not in page


def test_faulty_schema_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "faulty.proto").write_text('syntax = "proto2"; message A { optional B b = 1; }')
    with pytest.raises(ValueError, match="protoc failed"):
        read_schema(tmp_path)
    assert '"B" is not defined' in capfd.readouterr().err


def test_importing_files_come_first() -> None:
    files = [FileDoc("a", ()), FileDoc("b", ("a",)), FileDoc("root", ("a", "b")), FileDoc("c", ())]
    assert [file.name for file in in_reading_order(files)] == ["c", "root", "b", "a"]


def messages(descriptor: Descriptor, seen: set[str]) -> Iterator[Descriptor]:
    """The message and all that its fields reach, in our package."""
    if descriptor.full_name in seen or not descriptor.full_name.startswith("easyrec_lite."):
        return
    seen.add(descriptor.full_name)
    yield descriptor
    for field in descriptor.fields:
        if field.message_type:
            yield from messages(field.message_type, seen)


def test_the_whole_language_is_there_and_its_links_lead_somewhere() -> None:
    page = render(read_schema())
    reachable = list(messages(pipeline_pb2.EasyRecConfig.DESCRIPTOR, set()))
    assert len(reachable) > 150
    for message in reachable:
        name = message.full_name.removeprefix("easyrec_lite.")
        _, _, section = page.partition(f"### {name} {{ #{anchor(name)} }}\n")
        section = section.partition("\n### ")[0]
        shown = set(re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE))
        assert shown == {field.name for field in message.fields}, name
    anchors = re.findall(r"\{ #([\w-]+) \}", page)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#([\w-]+)\)", page)) <= set(anchors)
