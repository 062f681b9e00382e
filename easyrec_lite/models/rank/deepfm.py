"""DeepFM: a linear part, pairwise interactions and a deep network on the same features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import keras
import tensorflow as tf

from easyrec_lite.config import ConfigError, Problem
from easyrec_lite.layers import FM
from easyrec_lite.models.base import Model, require_groups
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

    @classmethod
    def check(cls, config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
        """Groups wide and deep; features of one width for the interactions."""
        yield from require_groups(config, ("wide", "deep"), cls.params_field)
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
        self.fm = FM(use_variant=True, name="fm")
        self.dnn = mlp_from_config(self.params.dnn, "dnn")
        self.final_dnn = (
            mlp_from_config(self.params.final_dnn, "final_dnn") if self.params.HasField("final_dnn") else None
        )
        self.output_layer = keras.layers.Dense(1, name="output")

    def call(self, groups: dict[str, GroupInput], training: bool = False) -> dict[str, tf.Tensor]:
        """See Model.call."""
        wide = tf.reduce_sum(tf.reshape(groups["wide"], [-1, len(self.layouts["wide"].slots), self._wide_dim]), axis=1)
        fields = tf.reshape(groups[self._fm_group], [-1, len(self.layouts[self._fm_group].slots), self._fm_width])
        fm = self.fm(fields)
        deep = self.dnn(groups["deep"], training=training)
        if self.final_dnn is not None:
            x = self.final_dnn(tf.concat([wide, fm, deep], axis=1), training=training)
            return self.tasks[0].predictions(self.output_layer(x))
        return self.tasks[0].predictions(self.output_layer(deep) + wide + tf.reduce_sum(fm, axis=1, keepdims=True))


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
