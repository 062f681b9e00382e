"""Indexes the items of a two-tower model: `python -m easyrec_lite.index --export_dir d --items i.parquet ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easyrec_lite import _arguments
from easyrec_lite.errors import UserError
from easyrec_lite.terminal import main_guard, table, warn

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from easyrec_lite.inputs import WindowedSource
    from easyrec_lite.protos import data_pb2
    from easyrec_lite.serving import LoadedModel
    from easyrec_lite.serving.columns import ServedColumn

_NONE = "none"
_TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")


@main_guard
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    kind = None if options.index == _NONE else options.index
    if kind is None and (options.queries or options.index_param):
        parser.error("--queries and --index_param are of an index; found --index none")
    if options.recall_k and not options.queries:
        parser.error("--recall_k needs users to ask for: --queries FILE")
    _arguments.load_tensorflow()

    from easyrec_lite.config import load_config
    from easyrec_lite.serving import CONFIG, LoadedModel, description
    from easyrec_lite.serving import item_index as items
    from easyrec_lite.serving.module import ITEM_EMBEDDING, USER_EMBEDDING

    # All that can be refused is refused before the model is loaded.
    index_dir = Path(options.index_dir)
    items.check_target(index_dir)
    if kind is not None:
        items.require_faiss()
        items.index_parameters(kind, dict(options.index_param))
    path = _version(Path(options.export_dir), options.version)
    about = description(path)
    if ITEM_EMBEDDING not in about["signatures"]:
        raise UserError(
            f"{path}: found signatures {', '.join(about['signatures'])}; expected {ITEM_EMBEDDING}, which exports of"
            " two-tower models (DSSM) have: no other model gives an item one vector for all users."
        )
    config = load_config(None, text=(path / "assets" / CONFIG).read_text(encoding="utf-8")).message
    reader = _Reader(config.data_config, about, options.batch_size)
    source = reader.open(options.items, ITEM_EMBEDDING, options.item_id)
    asked = reader.open(options.queries, USER_EMBEDDING) if options.queries else None
    with LoadedModel(path) as model:
        users = None if asked is None else _first_distinct(reader.vectors(model, USER_EMBEDDING, asked), options)
        result = items.write_item_index(
            index_dir,
            options.item_id,
            reader.vectors(model, ITEM_EMBEDDING, source, options.item_id),
            similarity=_similarity(config),
            model={"version": int(path.name) if path.name.isdigit() else None, "step": about["step"]},
            kind=kind,
            parameters=dict(options.index_param),
            queries=users,
            ks=options.recall_k or (10, 100),
        )
    _show(result, path, index_dir, source.bad_rows.tally.bad)
    return 0


class _Reader:
    """Rows of files as inputs of an export's `*_embedding`, and the vectors of them.

    Args:
        config: data_config of the export: separator, defaults, private columns, how many rows may be unusable.
        about: the export's description: columns and signatures.
        batch_size: rows a batch.
    """

    def __init__(self, config: data_pb2.DatasetConfig, about: dict[str, Any], batch_size: int) -> None:
        from easyrec_lite.serving.columns import ServedColumn

        self._config, self._batch_size, self._signatures = config, batch_size, about["signatures"]
        self._columns = {column["name"]: ServedColumn.from_json(column) for column in about["columns"]}

    def open(self, paths: Sequence[str], signature: str, item_id: str | None = None) -> WindowedSource:
        """The rows, with the columns that the signature takes, and ids if their column is named.

        Raises:
            ConfigError: a column isn't there.
            InputError: the files can't be read.
            UserError: a column that can be no id, or lists where the model takes single values.
        """
        columns = self._of(signature)
        source = self._open(paths, columns, (), item_id)
        lists = {name for name, spec in source.columns.items() if spec.ragged}
        for name in sorted(lists):
            if name == item_id or self._columns[name].items is None:
                raise UserError(f"Column {name!r}: found lists; expected one value a row, as in training.")
        if lists:  # seen only now, and read with the type of their items
            source = self._open(paths, columns, lists, item_id)
        if item_id is not None and source.columns[item_id].kind.value == "float32":
            raise UserError(f"--item_id: found numbers with fractions in {item_id!r}; expected whole numbers or text.")
        return source

    def vectors(
        self, model: LoadedModel, signature: str, source: WindowedSource, item_id: str | None = None
    ) -> Iterator[tuple[pa.Array, np.ndarray]]:
        """Ids (none without their column) and vectors `[B, D]`, batch by batch.

        Raises:
            InputError: a damaged file, or too many unusable rows.
            UserError: rows without an id.
        """
        import pyarrow as pa

        from easyrec_lite.inputs import as_dataset, input_errors
        from easyrec_lite.serving.requests import as_inputs

        columns, (output,) = self._of(signature), self._signatures[signature]["outputs"]
        with input_errors(source):
            for rows, _, details in as_dataset(source, details=True):
                if item_id is not None and (missing := int(details.missing[item_id])):
                    raise UserError(f"--item_id: found {missing:,} rows without {item_id!r}; expected one in each.")
                ids = rows[item_id].numpy() if item_id is not None else None
                if ids is not None and ids.dtype == object:
                    ids = pa.array(ids, pa.binary()).cast(pa.string())
                yield pa.array([] if ids is None else ids), model(signature, as_inputs(rows, columns))[output]

    def _of(self, signature: str) -> list[ServedColumn]:
        return [self._columns[name] for name in self._signatures[signature]["inputs"]]

    def _open(
        self, paths: Sequence[str], columns: Sequence[ServedColumn], lists: Collection[str], item_id: str | None
    ) -> WindowedSource:
        from easyrec_lite.inputs import BadRows, open_source

        config = self._rows_config(columns, lists, item_id)
        if all(part.strip().endswith(_TEXT_ENDINGS) for path in paths for part in path.split(",")):
            config.input_type = config.CSVInput
        names = [column.name for column in columns]
        return open_source(
            config,
            paths,
            columns=list(dict.fromkeys([*names, item_id] if item_id is not None else names)),
            batch_size=self._batch_size,
            shuffle=False,
            bad_rows=BadRows.from_config(self._config),
        )

    def _rows_config(
        self, columns: Sequence[ServedColumn], lists: Collection[str], item_id: str | None
    ) -> data_pb2.DatasetConfig:
        """The export's data_config for rows of one side: columns go by name, and are read as they were in training."""
        from easyrec_lite.protos import data_pb2

        types = {
            "int64": data_pb2.DatasetConfig.INT64,
            "float32": data_pb2.DatasetConfig.FLOAT,
            "string": data_pb2.DatasetConfig.STRING,
        }
        declared = {field.input_name: field for field in self._config.input_fields}
        result = data_pb2.DatasetConfig()
        result.CopyFrom(self._config)
        del result.input_fields[:]
        result.with_header = True
        for column in columns:
            field = result.input_fields.add()
            if column.name in declared:
                field.CopyFrom(declared[column.name])
            field.input_name = column.name
            # What training read as lists may come as lists or as text, joined as the export takes it.
            dtype, default = column.dtype, column.default
            if column.name in lists and column.items is not None:
                dtype, default = column.items, column.item_default
            if column.name not in declared or column.items is not None:
                field.input_type = types[dtype.name]
            field.default_val = str(default)
        if item_id in declared and item_id not in {column.name for column in columns}:
            result.input_fields.add().CopyFrom(declared[item_id])
        return result


def _first_distinct(batches: Iterator[tuple[pa.Array, np.ndarray]], options: argparse.Namespace) -> np.ndarray:
    """The first vectors that differ `[N, D]`: a user with many rows is asked for once."""
    import numpy as np

    found: dict[bytes, np.ndarray] = {}
    for _, vectors in batches:
        if not np.isfinite(vectors).all():
            raise UserError("--queries: found users whose vectors have NaN or infinity; expected numbers.")
        for vector in vectors:
            found.setdefault(vector.tobytes(), vector)
            if len(found) == options.max_queries:
                return np.stack([*found.values()])
    return np.stack([*found.values()])


def _version(export_dir: Path, number: int | None) -> Path:
    """The folder of a version, the newest if no number is given; `export_dir` may be that folder itself."""
    from easyrec_lite.serving import DESCRIPTION, versions

    found = [export_dir] if (export_dir / "saved_model.pb").exists() and number is None else versions(export_dir)
    if number is not None:
        numbers = ", ".join(path.name for path in found)
        found = [path for path in found if int(path.name) == number]
        if not found and numbers:
            raise UserError(f"--version: found {number}; expected one of those in {export_dir}: {numbers}.")
    if not found or not (found[-1] / "assets" / DESCRIPTION).exists():
        raise UserError(
            f"{found[-1] if found else export_dir}: found no model that easyrec_lite exported; expected folders of"
            " versions with one. Export one by: python -m easyrec_lite.export --config x.config --export_dir DIR"
        )
    return found[-1]


def _similarity(config: Any) -> str:
    from easyrec_lite.protos import layer_pb2

    model = config.model_config
    cosine = model.HasField("dssm") and model.dssm.simi_func == layer_pb2.COSINE
    return "cosine" if cosine else "inner_product"


def _show(result: dict[str, Any], path: Path, index_dir: Path, bad: int) -> None:
    if result["duplicates"]:
        warn(
            f"{result['duplicates']:,} rows repeat the id of an earlier row and are left out: of each id the first row"
            " counts."
        )
    index, model = result["index"], result["model"]
    parameters = " ".join(f"{name}={value}" for name, value in index["parameters"].items()) if index else ""
    rows = [
        ("items", f"{result['items']:,}"),
        ("rows that repeat an id", f"{result['duplicates']:,}"),
        ("rows that could not be read", f"{bad:,}"),
        ("vectors", f"{result['dimension']} numbers, {result['similarity'].replace('_', ' ')}"),
        ("index", f"{index['kind']} {parameters}".strip() if index else "none"),
        ("model", f"{path}, step {model['step']:,}"),
        ("written to", str(index_dir)),
    ]
    table("Item index", ("what", "value"), rows)
    if result["recall"] is not None:
        lines = [
            (one["k"], f"{one['recall']:.4f}", f"{one['index_ms']:.3f}", f"{one['exact_ms']:.3f}")
            for one in result["recall"]["at"]
        ]
        title = f"Against brute force, {result['recall']['queries']:,} users (median ms of one query)"
        table(title, ("k", "recall", "index ms", "brute force ms"), lines)
    elif index:
        print("recall: not measured; name rows of users by --queries")


def _parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python -m easyrec_lite.index",
        description="Writes the vectors of items and an index of them, for exports of two-tower models.",
        allow_abbrev=False,
    )
    add = result.add_argument
    add("--export_dir", required=True, metavar="DIR", help="parent of the version folders, or one of them")
    add("--version", type=_arguments.positive, metavar="N", help="of the model; the highest if left out")
    add("--items", required=True, action="append", metavar="PATH", help="files, patterns, lists; CSV needs a header")
    add("--item_id", required=True, metavar="COLUMN", help="column of ids: whole numbers or text")
    add("--index_dir", required=True, metavar="DIR", help="to write; must not exist or be empty")
    add(
        "--index",
        choices=("flat", "hnsw", "ivf", _NONE),
        default="flat",
        help="flat is exact; hnsw and ivf look at a part of the items; none writes the vectors alone (%(default)s)",
    )
    add(
        "--index_param",
        type=_parameter,
        action="append",
        default=[],
        metavar="NAME=N",
        help="hnsw: M, efConstruction, efSearch; ivf: nlist, nprobe; may be repeated",
    )
    add("--queries", action="append", metavar="PATH", help="rows of users, by which the recall is measured")
    add("--max_queries", type=_arguments.positive, default=1000, metavar="N", help="users, the first (%(default)s)")
    add("--recall_k", type=_arguments.positive, nargs="+", metavar="K", help="items a user (default: 10 100)")
    add("--batch_size", type=_arguments.positive, default=4096, metavar="N", help="rows at a time (%(default)s)")
    return result


def _parameter(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text!r}; expected NAME=N, such as efSearch=128")
    return name, int(number)


if __name__ == "__main__":
    sys.exit(main())
