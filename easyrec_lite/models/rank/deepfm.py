"""DeepFM: a linear part, pairwise interactions and a deep network on the same features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from typing import ClassVar

import keras
import tensorflow as tf

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.layers import FM, Side, Sided, apply, as_tensor, concat
from easyrec_lite.models.base import Model, require_groups, unread_groups
from easyrec_lite.models.groups import GroupInput, mlp_from_config
from easyrec_lite.models.layout import GroupLayout
from easyrec_lite.models.registry import register
from easyrec_lite.protos import feature_pb2, model_pb2, pipeline_pb2


@register("DeepFM")
class DeepFM(Model):
    """DeepFM (Guo et al., 2017).

    Groups: `wide` (WIDE), `deep`, and optionally `fm` where the interactions read other features than the deep
    network. Without `final_dnn` the logit is wide + sum of the FM vector + dense(dnn); with it, the three are
    concatenated and go through it.
    """

    params_field: ClassVar[str] = "deepfm"
    takes_sides: ClassVar[bool] = True

    @classmethod
    def check(cls, config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
        """Groups wide and deep; features of one width for the interactions."""
        yield from require_groups(config, ("wide", "deep"), cls.params_field)
        yield from unread_groups(config, ("wide", "deep", "fm"), reader="part of a DeepFM")
        sequences = {
            f.feature_name for f in config.features if f.feature_type == feature_pb2.FeatureConfig.SequenceFeature
        }
        for group in config.model_config.feature_groups:
            path = "model_config.feature_groups[wide]"
            if group.group_name != "wide":
                continue
            if group.wide_deep != feature_pb2.WIDE:
                hint = "the linear part has a table of its own for each feature"
                yield Problem(f"{path}.wide_deep", "DEEP", "WIDE", hint)
            if found := [
                *sequences.intersection(group.feature_names),
                *(s.group_name for s in group.sequence_features),
            ]:
                expected = "features that a weight can be given to: use a TagFeature on the same column"
                yield Problem(path, f"the sequences {sorted(found)}", expected)
        params = config.model_config.deepfm
        if not params.HasField("final_dnn") and params.wide_output_dim != 1:
            yield Problem(
                "model_config.deepfm.wide_output_dim",
                str(params.wide_output_dim),
                "1",
                "without final_dnn the wide part is added to the one logit",
            )

    @classmethod
    def wide_dim(cls, config: model_pb2.EasyRecModel) -> int:
        """`wide_output_dim`, 1 by default."""
        return config.deepfm.wide_output_dim

    def __init__(self, config: pipeline_pb2.EasyRecConfig, layouts: Mapping[str, GroupLayout]) -> None:
        super().__init__(config, layouts)
        self._wide_dim = self.wide_dim(config.model_config)
        self._fm_group = "fm" if "fm" in layouts else "deep"
        self._fm_width = fm_width(layouts[self._fm_group])
        self.fm = FM(use_variant=self.params.HasField("final_dnn"), dim=self._fm_width, name="fm")
        self.dnn = mlp_from_config(self.params.dnn, "dnn")
        self.final_dnn = (
            mlp_from_config(self.params.final_dnn, "final_dnn") if self.params.HasField("final_dnn") else None
        )
        self.output_layer = keras.layers.Dense(1, name="output")

    def call(self, groups: dict[str, GroupInput], training: bool = False) -> dict[str, tf.Tensor]:
        """See Model.call."""
        wide = self._linear(groups["wide"])
        fm = apply(self.fm, groups[self._fm_group], training=training)
        deep = apply(self.dnn, groups["deep"], training=training)
        if self.final_dnn is not None:
            x = apply(self.final_dnn, concat([wide, fm, deep]), training=training)
            return self.tasks[0].predictions(apply(self.output_layer, x))
        logits = as_tensor(apply(self.output_layer, deep)) + as_tensor(wide) + as_tensor(fm)
        return self.tasks[0].predictions(logits)

    def _linear(self, group: tf.Tensor | Sided) -> tf.Tensor | Sided:
        """The sum over the fields of the wide group `[B, wide_dim]`."""
        parts = group.user_first if isinstance(group, Sided) else ((Side.BOTH, group),)
        sums = [tf.reduce_sum(tf.reshape(x, [-1, x.shape[1] // self._wide_dim, self._wide_dim]), 1) for _, x in parts]
        total = reduce(tf.add, sums)
        return Sided(((group.side, total),)) if isinstance(group, Sided) else total


def fm_width(layout: GroupLayout) -> int:
    """The one width of the group's features.

    Raises:
        ConfigError: they differ.
    """
    widths = {slot.width for slot in layout.slots}
    if len(widths) == 1:
        return widths.pop()
    found = ", ".join(f"{slot.name} {slot.width}" for slot in layout.slots)
    path = f"model_config.feature_groups[{layout.name}]"
    raise ConfigError([Problem(path, f"widths {found}", "features of one width", "FM multiplies features pairwise")])
