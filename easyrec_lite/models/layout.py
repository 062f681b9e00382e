"""From the config's feature groups to requests of the embedding collection and to the shape of each group tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from easyrec_lite.embeddings import Concat, Pooled, Request, Sequence, TableSpec, table_initializer
from easyrec_lite.features import Feature
from easyrec_lite.layers import Side
from easyrec_lite.protos import feature_pb2, pipeline_pb2


@dataclass(frozen=True)
class Slot:
    """The columns of one feature (or of one attention output) in a group tensor."""

    name: str
    width: int


@dataclass(frozen=True)
class Piece:
    """A part of a group tensor that comes from one place.

    Attributes:
        kind: `lookup` (a Concat or Pooled request), `numbers` (a numeric feature as it is), `projection` (a numeric
            feature times learned rows), `combiner` (a sequence pooled by a layer), `attention` (target attention) or
            `self_attention` (histories encoded without a target).
        slots: the columns it fills, in order.
        request: index of the request (lookup, combiner).
        feature: the feature (numbers, projection, combiner).
        attention: what the attention reads.
    """

    kind: str
    slots: tuple[Slot, ...]
    request: int = -1
    feature: str = ""
    attention: AttentionSpec | None = None

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(slot.width for slot in self.slots)


@dataclass(frozen=True)
class AttentionSpec:
    """One `seq_att_map`: requests of the keys (target; self-attention has none) and of the history, and their use."""

    name: str
    keys: tuple[int, ...]
    history: tuple[int, ...]
    key_width: int
    history_width: int
    config: feature_pb2.SeqAttGroupConfig = field(compare=False, repr=False)


@dataclass(frozen=True)
class GroupLayout:
    """The columns of one group.

    Attributes:
        name: the group's name.
        wide: a WIDE group: each feature has its own table of the model's `wide_output_dim`.
        pieces: in column order.
        histories: target attention inputs left to the model (top-level `seq_att_groups`); such a group has no pieces.
    """

    name: str
    wide: bool
    pieces: tuple[Piece, ...]
    histories: tuple[AttentionSpec, ...] = ()

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Features in column order with their widths."""
        return tuple(slot for piece in self.pieces for slot in piece.slots)

    @property
    def width(self) -> int:
        """Number of columns of the group tensor `[B, width]`."""
        return sum(piece.width for piece in self.pieces)


class LayoutBuilder:
    """Collects requests and tables while it lays out the groups of a config.

    Args:
        config: checked and complete.
        features: all of them, by name.
        wide_dim: width of the tables of WIDE groups.
        sides: by feature, for serving: neighbours of different sides are looked up apart, so that the user's have rows
            of their own. None looks up together what goes together.

    Attributes:
        requests: what the groups need of the collection.
        tables: the logical tables, by name.
        layouts: the groups, by name.
    """

    def __init__(
        self,
        config: pipeline_pb2.EasyRecConfig,
        features: Mapping[str, Feature],
        wide_dim: int,
        sides: Mapping[str, Side] | None = None,
    ) -> None:
        self._features = features
        self._sides = sides or {}
        self._wide_dim = wide_dim
        self.requests: list[Request] = []
        self.tables: dict[str, TableSpec] = {}
        self.layouts: dict[str, GroupLayout] = {}
        for group in config.model_config.feature_groups:
            self.layouts[group.group_name] = self._lay_out(group)
        for histories in config.model_config.seq_att_groups:
            specs = tuple(self._attention(histories, place) for place in range(len(histories.seq_att_map)))
            self.layouts[histories.group_name] = GroupLayout(histories.group_name, False, (), specs)

    @property
    def used_features(self) -> list[str]:
        """Names of the features that some group uses, in the order of the config."""
        used: set[str] = set()
        for request in self.requests:
            used.update(request.features if isinstance(request, Concat) else (request.feature,))
        for layout in self.layouts.values():
            used.update(piece.feature for piece in layout.pieces if piece.feature)
        return [name for name in self._features if name in used]

    def _lay_out(self, group: feature_pb2.FeatureGroupConfig) -> GroupLayout:
        wide = group.wide_deep == feature_pb2.WIDE
        pieces: list[Piece] = []
        run: list[str] = []  # neighbouring single-valued features of one width: one gather

        def flush() -> None:
            if run:
                tables = tuple(self._table(name, wide) for name in run)
                width = self.tables[tables[0]].dim
                request = self._request(Concat(tuple(run), tables))
                pieces.append(Piece("lookup", tuple(Slot(name, width) for name in run), request))
                run.clear()

        for name in group.feature_names:
            feature = self._features[name]
            if _single_valued(feature):
                if run and self._kind(run[0], wide) != self._kind(name, wide):
                    flush()
                run.append(name)
            else:
                flush()
                pieces.append(self._piece(feature, wide))
        flush()
        for attention in group.sequence_features:
            for place in range(len(attention.seq_att_map)):
                spec = self._attention(attention, place)
                width = spec.history_width + (spec.key_width if attention.need_key_feature else 0)
                kind = "self_attention" if attention.HasField("self_attention") else "attention"
                pieces.append(Piece(kind, (Slot(spec.name, width),), attention=spec))
        return GroupLayout(group.group_name, wide, tuple(pieces))

    def _piece(self, feature: Feature, wide: bool) -> Piece:
        dim = self._dim(feature.name, wide)
        slot = (Slot(feature.name, dim or feature.width),)
        if feature.num_ids is None and not feature.is_sequence:
            return Piece("projection" if dim else "numbers", slot, feature=feature.name)
        if not feature.is_sequence:
            combiner = "sum" if wide else feature.config.combiner
            return Piece("lookup", slot, self._request(Pooled(feature.name, self._table(feature.name, wide), combiner)))
        request = self._sequence(feature.name)
        width = combined_width(feature.config.sequence_combiner, feature.config.embedding_dim)
        return Piece("combiner", (Slot(feature.name, width),), request, feature.name)

    def _attention(self, config: feature_pb2.SeqAttGroupConfig, place: int) -> AttentionSpec:
        seq_map = config.seq_att_map[place]
        keys = tuple(self._key(name) for name in seq_map.key)
        history = tuple(self._sequence(name) for name in [*seq_map.hist_seq, *seq_map.aux_hist_seq])
        name = config.group_name or "_".join(seq_map.hist_seq)
        return AttentionSpec(
            name if len(config.seq_att_map) == 1 else f"{name}_{place}",
            keys,
            history,
            sum(self._features[k].config.embedding_dim for k in seq_map.key),
            sum(self._features[h].config.embedding_dim for h in [*seq_map.hist_seq, *seq_map.aux_hist_seq]),
            config,
        )

    def _key(self, name: str) -> int:
        table = self._table(name, wide=False)
        if _single_valued(self._features[name]):
            return self._request(Concat((name,), (table,)))
        return self._request(Pooled(name, table, self._features[name].config.combiner))

    def _sequence(self, name: str) -> int:
        return self._request(Sequence(name, self._table(name, wide=False), self._features[name].config.combiner))

    def _request(self, request: Request) -> int:
        if request not in self.requests:
            self.requests.append(request)
        return self.requests.index(request)

    def _kind(self, name: str, wide: bool) -> tuple[int, Side | None]:
        """Equal for features that one gather can take."""
        return self._dim(name, wide), self._sides.get(name)

    def _dim(self, name: str, wide: bool) -> int:
        return self._wide_dim if wide else self._features[name].config.embedding_dim

    def _table(self, name: str, wide: bool) -> str:
        """The table of a feature, made when first asked for; features with one `embedding_name` share it."""
        feature = self._features[name]
        assert feature.num_ids is not None
        base = feature.config.embedding_name or name
        table = f"{base}_wide" if wide else base
        dim = self._dim(name, wide)
        known = self.tables.get(table)
        owners = (*known.owners, name) if known and name not in known.owners else known.owners if known else (name,)
        rows = max(known.rows if known else 0, feature.num_ids)
        initial = known.initial if known else table_initializer(_initializer(feature), dim)
        self.tables[table] = TableSpec(table, rows, dim, owners, initial)
        return table


def combined_width(combiner: feature_pb2.SequenceCombiner, dim: int) -> int:
    """Columns that a sequence combiner makes of steps of width `dim`."""
    if combiner.WhichOneof("combiner") != "text_cnn":
        return dim
    text_cnn = combiner.text_cnn
    return text_cnn.mlp.hidden_units[-1] if text_cnn.mlp.hidden_units else sum(text_cnn.num_filters)


def _single_valued(feature: Feature) -> bool:
    return feature.num_ids is not None and not feature.is_sequence and not feature.multi_valued


def _initializer(feature: Feature) -> feature_pb2.Initializer | None:
    return feature.config.initializer if feature.config.HasField("initializer") else None
