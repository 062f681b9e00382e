"""DBMTL: task towers that see the towers of the tasks they depend on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import keras
import tensorflow as tf

from easyrec_lite.config import Problem, no_effect
from easyrec_lite.layers import MMoE, apply, concat
from easyrec_lite.models.base import Model, Task, require_groups, unread_groups
from easyrec_lite.models.groups import GroupInput, mlp_from_config, mlp_options
from easyrec_lite.models.layout import GroupLayout
from easyrec_lite.models.registry import register
from easyrec_lite.protos import pipeline_pb2, tower_pb2


@register("DBMTL")
class DBMTL(Model):
    """Deep Bayesian multi-target learning (Wang et al., 2019).

        all ── bottom_dnn ──(experts, one gate a task)── dnn(task) ── relation_dnn([own, relations]) ── logit(task)

    A tower's relations are the towers named by `relation_tower_names`, of tasks earlier in the chain of cause and
    effect (a click before a purchase); their order in the config is free, a circle is an error. A tower without
    relations has its relation_dnn too, after its dnn; without a relation_dnn the concatenation goes to the logit.
    """

    params_field: ClassVar[str] = "dbmtl"
    takes_sides: ClassVar[bool] = True

    @classmethod
    def check(cls, config: pipeline_pb2.EasyRecConfig) -> Iterator[Problem]:
        """The group all, towers of different names, relations that exist and have an order."""
        yield from require_groups(config, ("all",), cls.params_field)
        yield from unread_groups(config, ("all",))
        for field in ("loss_type", "label_name"):
            if getattr(config.model_config, field):
                yield no_effect(f"model_config.{field}", f"{field} beside task_towers", f"{field} in each of them")
        params = config.model_config.dbmtl
        names = [tower.tower_name for tower in params.task_towers]
        base = "model_config.dbmtl.task_towers"
        if not names:
            yield Problem(base, "no tower", "a tower for each label")
        for place, tower in enumerate(params.task_towers):
            path = f"{base}[{tower.tower_name or place}]"
            if tower.tower_name in names[:place]:
                yield Problem(f"{path}.tower_name", f"{tower.tower_name!r} twice", "towers of different names")
            label = tower.label_name
            if label and label not in config.data_config.label_fields:
                known = f"one of data_config.label_fields {list(config.data_config.label_fields)}"
                yield Problem(f"{path}.label_name", repr(label), known)
            for field in ("in_task_space_weight", "out_task_space_weight"):
                if getattr(tower, field) != 1 and not tower.task_space_indicator_label:
                    expected = "task_space_indicator_label: which rows are in the space"
                    yield no_effect(f"{path}.{field}", f"{field} alone", expected)
            for relation in tower.relation_tower_names:
                if relation not in names:
                    yield Problem(f"{path}.relation_tower_names", repr(relation), f"one of {names}")
        if params.num_expert and not params.expert_dnn.hidden_units:
            path = "model_config.dbmtl.expert_dnn"
            yield Problem(path, "nothing", "the network of an expert", f"num_expert is {params.num_expert}")
        if params.HasField("expert_dnn") and not params.num_expert:
            expected = "num_expert: how many of these networks there are"
            yield no_effect("model_config.dbmtl.expert_dnn", "expert_dnn without num_expert", expected)
        if _order(params.task_towers) is None:
            yield Problem(base, "relations that run in a circle", "relations that lead from cause to effect only")

    def __init__(self, config: pipeline_pb2.EasyRecConfig, layouts: Mapping[str, GroupLayout]) -> None:
        super().__init__(config, layouts)
        params = self.params
        self.bottom_dnn = mlp_from_config(params.bottom_dnn, "bottom_dnn") if params.HasField("bottom_dnn") else None
        self.experts = (
            MMoE(
                len(params.task_towers),
                [tuple(params.expert_dnn.hidden_units)] * params.num_expert,
                mlp_options(params.expert_dnn),
                name="mmoe",
            )
            if params.num_expert
            else None
        )
        self.towers: dict[str, keras.layers.Layer] = {}
        self.relations: dict[str, keras.layers.Layer] = {}
        self.outputs_by_task: dict[str, keras.layers.Layer] = {}
        for tower in params.task_towers:
            name = tower.tower_name
            if tower.HasField("dnn"):
                self.towers[name] = mlp_from_config(tower.dnn, f"{name}_dnn")
            if tower.HasField("relation_dnn"):
                self.relations[name] = mlp_from_config(tower.relation_dnn, f"{name}_relation_dnn")
            self.outputs_by_task[name] = keras.layers.Dense(1, name=f"{name}_output")
        self._order = _order(params.task_towers) or []

    def make_tasks(self, config: pipeline_pb2.EasyRecConfig) -> Sequence[Task]:
        """One task a tower; towers without a label name take the label fields in order."""
        labels = list(config.data_config.label_fields)
        return [
            Task(
                tower.tower_name,
                tower.label_name or labels[place],
                tower.loss_type,
                tuple(tower.metrics_set),
                tower.weight,
                tower.use_sample_weight,
                tower.task_space_indicator_label,
                tower.in_task_space_weight,
                tower.out_task_space_weight,
            )
            for place, tower in enumerate(config.model_config.dbmtl.task_towers)
        ]

    def call(self, groups: dict[str, GroupInput], training: bool = False) -> dict[str, tf.Tensor]:
        """See Model.call."""
        x = groups["all"]
        if self.bottom_dnn is not None:
            x = apply(self.bottom_dnn, x, training=training)
        names = [tower.tower_name for tower in self.params.task_towers]
        inputs = apply(self.experts, x, training=training) if self.experts is not None else [x] * len(names)
        hidden = {
            name: apply(self.towers[name], inputs[place], training=training) if name in self.towers else inputs[place]
            for place, name in enumerate(names)
        }
        # In order of the relations, so that a tower sees its relations' last layers.
        for place in self._order:
            tower = self.params.task_towers[place]
            name = tower.tower_name
            if tower.relation_tower_names:
                hidden[name] = concat([hidden[name], *(hidden[other] for other in tower.relation_tower_names)])
            if name in self.relations:
                hidden[name] = apply(self.relations[name], hidden[name], training=training)
        predictions: dict[str, tf.Tensor] = {}
        for task in self.tasks:
            predictions.update(task.predictions(apply(self.outputs_by_task[task.name], hidden[task.name])))
        return predictions


def _order(towers: Sequence[tower_pb2.BayesTaskTower]) -> list[int] | None:
    """Places of the towers, each after its relations; None where they run in a circle."""
    place_of = {tower.tower_name: place for place, tower in enumerate(towers)}
    order: list[int] = []
    waiting = list(range(len(towers)))
    while waiting:
        ready = [
            place
            for place in waiting
            if all(
                place_of.get(name, place) not in waiting or name not in place_of
                for name in towers[place].relation_tower_names
            )
        ]
        if not ready:
            return None
        order += ready
        waiting = [place for place in waiting if place not in ready]
    return order
