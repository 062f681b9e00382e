"""Renders the protobuf schema as the config reference of the manual.

Everything on the page comes from `protos/*.proto`: names, types, defaults, comments, and the options that say what is
required and how far a field is implemented (`protos/options.proto`).

    python -m tools.docs.config_reference > reference.md
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc_tools
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from easyrec_lite.protos import options_pb2

PROTOS = Path(__file__).parents[2] / "protos"
PACKAGE = "easyrec_lite"
IMPORT_PATH = f"{PACKAGE}/protos"
# The options describe the schema; nobody writes them in a config.
NOT_CONFIG = ("options",)
# What a file may hold: a config, a search space.
ROOTS = ("EasyRecConfig", "SearchSpace")

STATUS = {
    options_pb2.SUPPORTED: "supported",
    options_pb2.PLANNED: "planned",
    options_pb2.NO_EFFECT: "no effect",
    options_pb2.PLATFORM: "other platform",
}
REFUSED = ("planned", "other platform")

INTRODUCTION = """\
# Config reference

Every message and field of the language, generated from the schema in `protos/`. A config file is one
[EasyRecConfig](#easyrecconfig), a search space one [SearchSpace](#searchspace).

| Status | A config that sets the field, or names the value |
|---|---|
| supported | works: it does what is said here |
| planned | is refused: it belongs to the language, but is not implemented yet |
| no effect | works, with a warning: it can't change the result here |
| other platform | is refused: it belongs to a service of one cloud |

`*` marks a field that may be given several times, *required* one that has to be there. Of the fields that share a
*one of*, at most one may be set.
"""

REST = """\
## Not usable yet

The rest of the language: only fields that are refused lead here.
"""


@dataclass(frozen=True)
class FieldDoc:
    """One field of a message, ready to be shown."""

    name: str
    type: str
    links_to: str | None
    repeated: bool
    default: str
    required: bool
    status: str
    one_of: str | None
    comment: str
    advice: str


@dataclass(frozen=True)
class ValueDoc:
    """One value of an enum."""

    name: str
    status: str
    comment: str
    advice: str


@dataclass(frozen=True)
class TypeDoc:
    """A message (with fields) or an enum (with values)."""

    name: str
    comment: str
    fields: tuple[FieldDoc, ...] = ()
    values: tuple[ValueDoc, ...] = ()
    is_enum: bool = False

    @property
    def anchor(self) -> str:
        """What a link to this type points at."""
        return anchor(self.name)


@dataclass
class FileDoc:
    """One .proto file: its types in the order of the file."""

    name: str
    imports: tuple[str, ...]
    types: list[TypeDoc] = field(default_factory=list)


def anchor(name: str) -> str:
    """The HTML id of a type: `DatasetConfig.Field` becomes `datasetconfig-field`."""
    return name.lower().replace(".", "-")


def read_schema(protos: Path = PROTOS) -> list[FileDoc]:
    """Reads all .proto files of a folder, importable as `easyrec_lite/protos/<name>.proto`.

    Raises:
        ValueError: protoc found a fault; it has printed where.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "schema"
        # In a process of its own: protoc and TensorFlow bring different builds of the same C++ library.
        command = [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{IMPORT_PATH}={protos}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            "--include_source_info",
            f"--descriptor_set_out={output}",
            *(f"{IMPORT_PATH}/{path.name}" for path in sorted(protos.glob("*.proto"))),
        ]
        if subprocess.run(command, check=False).returncode != 0:
            raise ValueError(f"protoc failed on {protos}/*.proto; its messages are above")
        files = FileDescriptorSet.FromString(output.read_bytes()).file
    return [_read_file(file) for file in files]


def render(files: Iterable[FileDoc], root: str | Sequence[str] = ROOTS) -> str:
    """The reference as one Markdown page: what a config can use today by file, then the rest."""
    roots = [root] if isinstance(root, str) else root
    ordered = in_reading_order([file for file in files if file.name not in NOT_CONFIG])
    usable = _usable([document for file in ordered for document in file.types], map(anchor, roots))
    parts = [INTRODUCTION]
    for file in ordered:
        types = [document for document in file.types if document.anchor in usable]
        if types:
            parts.append(f"## {file.name}.proto\n")
            parts.extend(map(_render_type, types))
    parts.append(REST)
    parts.extend(_render_type(document) for file in ordered for document in file.types if document.anchor not in usable)
    return "\n".join(parts)


def _usable(types: list[TypeDoc], roots: Iterable[str]) -> set[str]:
    """Anchors of the types that can be reached from the roots by fields that are not refused."""
    by_anchor = {document.anchor: document for document in types}
    usable: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in usable:
            usable.add(name)
            fields = by_anchor[name].fields
            waiting.extend(f.links_to for f in fields if f.links_to and f.status not in REFUSED)
    return usable


def in_reading_order(files: list[FileDoc]) -> list[FileDoc]:
    """From the file that imports the others down to what they are made of; files of one rank by name."""
    by_name = {file.name: file for file in files}

    def rank(file: FileDoc) -> int:
        importers = [other for other in files if file.name in other.imports]
        return 1 + max(map(rank, importers), default=-1)

    return [by_name[name] for name in sorted(by_name, key=lambda name: (rank(by_name[name]), name))]


def _read_file(file: FileDescriptorProto) -> FileDoc:
    # A path is what protobuf calls the position of a declaration: field numbers and indices down from the file.
    comments = {
        tuple(location.path): _comment(location.leading_comments, location.trailing_comments)
        for location in file.source_code_info.location
    }
    document = FileDoc(Path(file.name).stem, tuple(Path(name).stem for name in file.dependency))
    for index, message in enumerate(file.message_type):
        path = (FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, index)
        document.types.extend(_read_message(message, message.name, path, comments))
    for index, enum in enumerate(file.enum_type):
        path = (FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER, index)
        document.types.append(_read_enum(enum, enum.name, path, comments))
    return document


def _read_message(
    message: DescriptorProto, name: str, path: tuple[int, ...], comments: dict[tuple[int, ...], str]
) -> Iterator[TypeDoc]:
    fields = []
    for index, descriptor in enumerate(message.field):
        one_of = message.oneof_decl[descriptor.oneof_index].name if descriptor.HasField("oneof_index") else None
        comment = comments.get((*path, DescriptorProto.FIELD_FIELD_NUMBER, index), "")
        fields.append(_read_field(descriptor, one_of, comment))
    yield TypeDoc(name, comments.get(path, ""), fields=tuple(fields))
    for index, nested in enumerate(message.nested_type):
        nested_path = (*path, DescriptorProto.NESTED_TYPE_FIELD_NUMBER, index)
        yield from _read_message(nested, f"{name}.{nested.name}", nested_path, comments)
    for index, enum in enumerate(message.enum_type):
        nested_path = (*path, DescriptorProto.ENUM_TYPE_FIELD_NUMBER, index)
        yield _read_enum(enum, f"{name}.{enum.name}", nested_path, comments)


def _read_field(descriptor: FieldDescriptorProto, one_of: str | None, comment: str) -> FieldDoc:
    options: Any = descriptor.options.Extensions  # protoc writes no precise types for extensions
    own_type = descriptor.type_name.removeprefix(f".{PACKAGE}.")
    if own_type and own_type != descriptor.type_name:
        type_name, links_to = own_type, anchor(own_type)
    elif own_type:  # a message of protobuf's own
        type_name, links_to = own_type.lstrip("."), None
    else:
        type_name, links_to = FieldDescriptorProto.Type.Name(descriptor.type).removeprefix("TYPE_").lower(), None
    if options[options_pb2.secret]:
        comment = f"{comment} A secret: give a reference, `env:NAME` or `file:PATH`.".strip()
    return FieldDoc(
        name=descriptor.name,
        type=type_name,
        links_to=links_to,
        repeated=descriptor.label == FieldDescriptorProto.LABEL_REPEATED,
        default=_default(descriptor),
        required=options[options_pb2.required],
        status=STATUS[options[options_pb2.support]],
        one_of=one_of,
        comment=comment,
        advice=options[options_pb2.advice],
    )


def _read_enum(
    enum: EnumDescriptorProto, name: str, path: tuple[int, ...], comments: dict[tuple[int, ...], str]
) -> TypeDoc:
    values = []
    for index, value in enumerate(enum.value):
        options: Any = value.options.Extensions
        comment = comments.get((*path, EnumDescriptorProto.VALUE_FIELD_NUMBER, index), "")
        status = STATUS[options[options_pb2.value_support]]
        values.append(ValueDoc(value.name, status, comment, options[options_pb2.value_advice]))
    return TypeDoc(name, comments.get(path, ""), values=tuple(values), is_enum=True)


def _comment(leading: str, trailing: str) -> str:
    return " ".join(f"{leading} {trailing}".split())


def _default(descriptor: FieldDescriptorProto) -> str:
    if not descriptor.HasField("default_value"):
        return ""
    if descriptor.type == FieldDescriptorProto.TYPE_STRING:
        # Control characters are what separators are made of: show them as a config writes them.
        return '"' + "".join(c if c.isprintable() else f"\\{ord(c):03o}" for c in descriptor.default_value) + '"'
    return descriptor.default_value


def _render_type(document: TypeDoc) -> str:
    lines = [f"### {document.name} {{ #{document.anchor} }}", ""]
    if document.comment:
        lines += [document.comment, ""]
    if document.is_enum:
        rows = ([f"`{v.name}`", v.status, _sentences(v.comment, v.advice)] for v in document.values)
        lines += _table(("Value", "Status", "Meaning"), rows)
    elif document.fields:
        header = ("Field", "Type", "Default", "Status", "Meaning")
        lines += _table(header, (_field_row(f) for f in document.fields))
    else:
        lines.append("No fields: naming it is enough.")
    return "\n".join([*lines, ""])


def _field_row(document: FieldDoc) -> list[str]:
    name = f"`{document.name}`" + (r"\*" if document.repeated else "")
    type_name = f"[{document.type}](#{document.links_to})" if document.links_to else document.type
    default = f"`{document.default}`" if document.default else ""
    meaning = _sentences(
        "*Required.*" if document.required else "",
        f"*One of `{document.one_of}`.*" if document.one_of else "",
        document.comment,
        document.advice,
    )
    return [name, type_name, default, document.status, meaning]


def _sentences(*parts: str) -> str:
    """The parts that say something. The last is an advice: a clause in messages, made a sentence here."""
    *others, advice = parts
    if advice:
        others.append(f"{advice[0].upper()}{advice[1:].rstrip('.')}.")
    return " ".join(filter(None, others))


def _table(header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield _row(header)
    yield _row("---" for _ in header)
    for row in rows:
        yield _row(_escape_pipes(cell) for cell in row)


def _escape_pipes(cell: str) -> str:
    """Escapes what would end the cell; inside of code Markdown takes a pipe, and a backslash, as it is."""
    return re.sub(r"(`[^`]*`)|\|", lambda match: match[1] or r"\|", cell)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print(render(read_schema()))
