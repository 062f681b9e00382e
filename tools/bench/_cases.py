"""The measured case: 20 features of width 16, MLPs 256-128-96-64, zipf ids; as configs and as Parquet files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from easyrec_lite import features, models
from easyrec_lite.config import PipelineConfig, load_config

MODELS = ("MultiTower", "DIN", "DSSM", "DBMTL", "DeepFM")

_HISTORIES = {"h0": "f10", "h1": "f11"}  # histories of what
_MEAN_TRIALS = 20.75  # of a geometric distribution whose minimum with 50 has the mean 19
_ZIPF = 1.05
_NEVER = 1_000_000_000  # steps, epochs


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes of the measured case; the defaults are those that published figures are of.

    Attributes:
        features: single-valued id features; the first half is the user's, the second the item's.
        dim: width of each.
        units: of every tower.
        table_rows: rows of each table.
        batch: rows a batch.
        rows: rows of the file, which is read again and again.
        longest: positions of a history at most (19 on average where it is 50).
        batch_norm: in every tower.
        shared: one table for all features.
        distinct: exactly so many distinct ids a batch, spread evenly over the table; 0 = zipf ids. Only with `shared`.
    """

    features: int = 20
    dim: int = 16
    units: tuple[int, ...] = (256, 128, 96, 64)
    table_rows: int = 100_000
    batch: int = 4096
    rows: int = 262_144
    longest: int = 50
    batch_norm: bool = False
    shared: bool = False
    distinct: int = 0

    def __post_init__(self) -> None:
        if self.features < 4:
            raise ValueError(f"Expected 4 features at least. Received: {self.features}")
        if self.distinct and not (self.shared and self.distinct <= min(self.table_rows, self.batch * self.features)):
            raise ValueError(
                f"distinct needs one shared table with so many rows and a batch with so many cells. Received: {self}"
            )

    @property
    def user_features(self) -> list[str]:
        """Names of the user's features."""
        return [f"f{i}" for i in range(self.features // 2)]

    @property
    def item_features(self) -> list[str]:
        """Names of the item's features."""
        return [f"f{i}" for i in range(self.features // 2, self.features)]


def config_of(
    model: str,
    case: Case,
    train_path: str | Path,
    model_dir: str | Path,
    edits: Sequence[str] = (),
    *,
    kafka: str = "",
    fields: str = "",
) -> PipelineConfig:
    """The checked config of one of `MODELS`, for training without end.

    Args:
        model: its name.
        case: its sizes.
        train_path: Parquet files.
        model_dir: where it goes.
        edits: changes, `path=value`.
        kafka: a `kafka_train_input` block, instead of train_path.
        fields: `input_fields`, which messages need and Parquet files don't.

    Raises:
        ConfigError: an edit doesn't fit.
    """
    text = f"""
        model_dir: "{model_dir}"
        {kafka or f'train_input_path: "{train_path}"'}
        train_config {{
          optimizer_config {{
            adam_optimizer {{ learning_rate {{ constant_learning_rate {{ learning_rate: 0.001 }} }} }}
          }}
          log_step_count_steps: {_NEVER} save_summary_steps: {_NEVER}
          save_checkpoints_steps: {_NEVER}
        }}
        data_config {{
          input_type: ParquetInput batch_size: {case.batch} num_epochs: {_NEVER} label_fields: ["clk", "buy"] {fields}
        }}
        {_features(model, case)}
        export_config {{ exporter_type: "none" }}
        model_config {{ {_model(model, case)} }}
    """
    return load_config(None, edits, checks=(features.check, models.check), text=text)


def _features(model: str, case: Case) -> str:
    names = {name: name for name in [*case.user_features, *case.item_features]}
    kinds = dict.fromkeys(names, "IdFeature")
    if model == "DIN":
        names |= histories(case)
        kinds |= dict.fromkeys(histories(case), "SequenceFeature")
    return "\n".join(
        f'features {{ input_names: "{name}" feature_type: {kinds[name]} num_buckets: {case.table_rows}'
        f' embedding_dim: {case.dim} embedding_name: "{"all" if case.shared else table}" }}'
        for name, table in names.items()
    )


def histories(case: Case) -> dict[str, str]:
    """Names of the histories, with the feature that each is a history of."""
    return dict(zip(_HISTORIES, case.item_features[:2], strict=True))


def _model(model: str, case: Case) -> str:
    bn = f"use_bn: {str(case.batch_norm).lower()}"
    dnn = f"dnn {{ hidden_units: {list(case.units)} {bn} }}"
    final = f"final_dnn {{ hidden_units: [128, 64] {bn} }}"

    def group(name: str, members: list[str], kind: str = "DEEP") -> str:
        listed = ", ".join(f'"{member}"' for member in members)
        return f'feature_groups {{ group_name: "{name}" feature_names: [{listed}] wide_deep: {kind} }}'

    user, item = case.user_features, case.item_features
    sides = f"{group('user', user)} {group('item', item)}"
    towers = f'towers {{ input: "user" {dnn} }} towers {{ input: "item" {dnn} }}'
    keys, past = (
        " ".join(f'{field}: "{name}"' for name in names)
        for field, names in (("key", histories(case).values()), ("hist_seq", histories(case)))
    )
    return {
        "MultiTower": f'model_class: "MultiTower" {sides} multi_tower {{ {towers} {final} }}',
        "DIN": f"""model_class: "MultiTowerDIN" {sides}
            seq_att_groups {{ group_name: "past" seq_att_map {{ {keys} {past} }} }}
            multi_tower {{
              {towers} {final}
              din_towers {{ input: "past" dnn {{ hidden_units: [128, 64, 32, 1] use_bn: false }} }}
            }}""",
        "DSSM": f"""model_class: "DSSM" loss_type: SOFTMAX_CROSS_ENTROPY {sides}
            dssm {{
              user_tower {{ {dnn} }} item_tower {{ {dnn} }}
              temperature: 0.05 scale_simi: false item_id: "{item[0]}"
            }}""",
        "DBMTL": f"""model_class: "DBMTL" {group("all", user + item)}
            dbmtl {{
              bottom_{dnn}
              task_towers {{ tower_name: "ctr" label_name: "clk" dnn {{ hidden_units: [64] {bn} }} }}
              task_towers {{
                tower_name: "cvr" label_name: "buy" dnn {{ hidden_units: [64] {bn} }}
                relation_tower_names: "ctr" relation_dnn {{ hidden_units: [32] {bn} }}
              }}
            }}""",
        "DeepFM": f"""model_class: "DeepFM" {group("wide", user + item, "WIDE")} {group("deep", user + item)}
            deepfm {{ {dnn} }}""",
    }[model]


def write_rows(path: Path, case: Case, seed: int = 0) -> None:
    """Writes a Parquet file that serves every model: int64 ids, lists of them, and two labels."""
    generator = np.random.default_rng(seed)
    ids = _spread_ids(case, generator) if case.distinct else _zipf_ids(case, generator, case.rows * case.features)
    columns: dict[str, pa.Array] = {
        name: pa.array(values)
        for name, values in zip(
            [*case.user_features, *case.item_features], ids.reshape(case.features, case.rows), strict=True
        )
    }
    lengths = np.minimum(generator.geometric(1 / _MEAN_TRIALS, case.rows), case.longest)
    splits = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    for name in histories(case):
        columns[name] = pa.ListArray.from_arrays(splits, pa.array(_zipf_ids(case, generator, int(lengths.sum()))))
    clicks = generator.random(case.rows) < 0.3
    columns["clk"] = pa.array(clicks.astype(np.int32))
    columns["buy"] = pa.array((clicks & (generator.random(case.rows) < 0.2)).astype(np.int32))
    pq.write_table(pa.table(columns), path, row_group_size=65_536)


def _zipf_ids(case: Case, generator: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
    """Ids whose r-th most frequent has a share in proportion to r ** -1.05; frequent ones anywhere in the table."""
    shares = np.cumsum(np.arange(1, case.table_rows + 1) ** -_ZIPF)
    ranks = np.searchsorted(shares, generator.random(count) * shares[-1])
    return generator.permutation(case.table_rows)[ranks]


def _spread_ids(case: Case, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """[features * rows] column by column: each batch of consecutive rows has `distinct` ids from all over the table."""
    cells = case.batch * case.features
    batches = []
    for _ in range(-(-case.rows // case.batch)):
        chosen = generator.choice(case.table_rows, case.distinct, replace=False, shuffle=True)
        repeated = chosen[generator.integers(0, case.distinct, cells - case.distinct)]
        batches.append(generator.permutation(np.concatenate([chosen, repeated])).reshape(case.features, case.batch))
    return np.concatenate(batches, axis=1)[:, : case.rows].reshape(-1)
