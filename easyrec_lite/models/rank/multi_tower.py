"""MultiTower and MultiTowerDIN: a network a feature group, joined by a last one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import keras
import tensorflow as tf

from easyrec_lite.config import Problem
from easyrec_lite.layers import MLP, BatchNorm, apply, concat
from easyrec_lite.models.base import Model, require_groups, unread_groups
from easyrec_lite.models.groups import GroupInput, attention_from_config, mlp_from_config, pooled
from easyrec_lite.models.layout import GroupLayout
from easyrec_lite.models.registry import register
from easyrec_lite.protos import pipeline_pb2


@register("MultiTower", "MultiTowerDIN")
class MultiTower(Model):
    """One MLP a group, concatenated, through a last MLP to one logit.

        group ──(batch norm)── dnn ─┐
        group ──(batch norm)── dnn ─┼─ concat ── final_dnn ── logit
        history ── attention ───────┘

    `din_towers` attend to a behaviour history with the target as the query (DIN: Zhou et al., 2018) and pass on
    `[pooled history, target]`. The batch norm at a tower's input follows that tower's `use_bn`.
    """

    params_field: ClassVar[str] = "multi_tower"
    takes_sides: ClassVar[bool] = True

    @classmethod
    def check(cls, config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
        """A tower at least, each on a group that exists."""
        yield from require_groups(config, (), cls.params_field)
        params = config.model_config.multi_tower
        if not params.towers and not params.din_towers:
            yield Problem("model_config.multi_tower.towers", "no tower", "at least one of towers and din_towers")
        groups = {group.group_name for group in config.model_config.feature_groups}
        histories = {group.group_name for group in config.model_config.seq_att_groups}
        for kind, known, where in (("towers", groups, "feature_groups"), ("din_towers", histories, "seq_att_groups")):
            for place, tower in enumerate(getattr(params, kind)):
                path = f"model_config.multi_tower.{kind}[{place}].input"
                if tower.input not in known:
                    yield Problem(path, repr(tower.input), f"one of {sorted(known)}", f"named by {where}")
                elif tower.input in [other.input for other in getattr(params, kind)[:place]]:
                    yield Problem(path, f"a second tower on the group {tower.input!r}", "one tower a group")
        for name in sorted(groups & histories):
            path = f"model_config.seq_att_groups[{name}]"
            yield Problem(path, f"a second group named {name!r}", "a name that no feature group has")
        read = {tower.input for tower in params.towers}, {tower.input for tower in params.din_towers}
        yield from unread_groups(config, *read)

    def __init__(self, config: pipeline_pb2.EasyRecConfig, layouts: Mapping[str, GroupLayout]) -> None:
        super().__init__(config, layouts)
        self.norms: dict[str, BatchNorm] = {}
        self.towers: dict[str, MLP] = {}
        for tower in self.params.towers:
            if tower.dnn.use_bn:
                self.norms[tower.input] = BatchNorm(name=f"{tower.input}_input_bn")
            self.towers[tower.input] = mlp_from_config(tower.dnn, f"{tower.input}_dnn")
        self.attentions = {
            tower.input: [
                attention_from_config(tower.dnn, f"{spec.name}_attention") for spec in layouts[tower.input].histories
            ]
            for tower in self.params.din_towers
        }
        self.final_dnn = mlp_from_config(self.params.final_dnn, "final_dnn")
        self.output_layer = keras.layers.Dense(1, name="output")

    @property
    def normed_inputs(self) -> list[tuple[BatchNorm, MLP]]:
        """The batch norms at the towers' inputs, for exports; see `layers.folding`."""
        return [(norm, self.towers[name]) for name, norm in self.norms.items()]

    def call(self, groups: dict[str, GroupInput], training: bool = False) -> dict[str, tf.Tensor]:
        """See Model.call."""
        parts = []
        for name, tower in self.towers.items():
            x = groups[name]
            if name in self.norms:
                x = apply(self.norms[name], x, training=training)
            parts.append(apply(tower, x, training=training))
        for name, attentions in self.attentions.items():
            histories = groups[name]
            assert isinstance(histories, tuple)
            for attention, history in zip(attentions, histories, strict=True):
                parts.append(pooled(attention, history, training))
                parts.append(history.query)
        x = apply(self.final_dnn, concat(parts), training=training)
        return self.tasks[0].predictions(apply(self.output_layer, x))
