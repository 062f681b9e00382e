"""The models once more in NumPy, after their papers and EasyRec's descriptions, row by row where that is clearer."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from tiny import columns

from easyrec_lite.models import Recommender

Array = np.ndarray


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def cross_entropy(labels: Array, logits: Array, weights: Array | None = None) -> float:
    rows = np.logaddexp(0, logits) - labels * logits
    weights = np.ones(len(rows)) if weights is None else weights
    return float((rows * weights).sum() / weights.sum())


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max())
    return e / e.sum()


def encoded(values: Mapping[str, Array], path: str, steps: Array, heads: int) -> Array:
    """The self-attention encoder for one row [L, D] -> [D], head by head; variables by path."""
    width = steps.shape[1]

    def norm(x: Array, name: str) -> Array:
        scaled = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-6)
        return scaled * values[f"{path}/{name}/gamma"] + values[f"{path}/{name}/beta"]

    if not len(steps):
        return np.zeros(width)
    x = steps
    if f"{path}/positions" in values:
        positions = values[f"{path}/positions"]
        x = x + positions[[min(place, len(positions) - 1) for place in range(len(x))]]
    x = np.sqrt(width) * x
    for block in [f"block_{i}" for i in range(9) if f"{path}/block_{i}/qkv/kernel" in values]:
        query, key, value = np.split(norm(x, f"{block}/attention_norm") @ values[f"{path}/{block}/qkv/kernel"], 3, 1)
        size = width // heads
        mixed = []
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            weights = [softmax(row) for row in query[:, columns] @ key[:, columns].T / np.sqrt(size)]
            mixed.append(weights @ value[:, columns])
        x = x + np.concatenate(mixed, axis=1) @ values[f"{path}/{block}/mix/kernel"]
        inner, outer = (f"{path}/{block}/feed_forward/dense_{i}" for i in range(2))
        hidden = relu(norm(x, f"{block}/feed_forward_norm") @ values[f"{inner}/kernel"] + values[f"{inner}/bias"])
        x = x + hidden @ values[f"{outer}/kernel"] + values[f"{outer}/bias"]
    return norm(x, "norm").mean(axis=0)


class Reference:
    """Vectors, layers and models from the values of a recommender's variables, in float64."""

    def __init__(self, recommender: Recommender, frame: pd.DataFrame, training: bool) -> None:
        self.frame = frame
        self.training = training
        self.variables = {v.path: np.asarray(v, np.float64) for v in recommender.dense_variables}
        self.tables = {
            view.name.split("/")[1]: view.read(0, view.shape[0]).astype(np.float64)
            for view in recommender.collection.views()
            if view.name.endswith("/weights")
        }
        encoded = recommender.encode_features(columns(frame))
        self.ids = {
            name: value.ids.to_list() if hasattr(value.ids, "to_list") else [[i] for i in value.ids.numpy()]
            for name, value in encoded.items()
            if hasattr(value, "ids")
        }
        self.numbers = {name: value.values.numpy() for name, value in encoded.items() if hasattr(value, "values")}

    # ---- features

    def steps(self, feature: str, table: str = "") -> list[Array]:
        """The rows of each bag; an id without a row is left out."""
        values = self.tables[table or feature]
        return [values[[i for i in ids if i >= 0]] for ids in self.ids[feature]]

    def summed(self, feature: str, table: str = "") -> Array:
        return np.stack([steps.sum(axis=0) for steps in self.steps(feature, table)])

    def mean(self, feature: str) -> Array:
        return np.stack([steps.sum(axis=0) / max(len(steps), 1) for steps in self.steps(feature)])

    def projected(self, feature: str, layer: str = "") -> Array:
        return self.numbers[feature] @ self.variables[f"groups/{layer or feature + '_projection'}/kernel"]

    def attended(self, feature: str, table: str) -> Array:
        """EasyRec's attention combiner: softmax over the steps of the products with one vector."""
        kernel = self.variables[f"groups/{feature}_combiner/kernel"]
        return np.stack(
            [
                softmax(steps @ kernel[:, 0]) @ steps if len(steps) else np.zeros(kernel.shape[0])
                for steps in self.steps(feature, table)
            ]
        )

    def text_cnn(self, feature: str, length: int, sizes: list[int]) -> Array:
        rows = []
        for steps in self.steps(feature):
            padded = np.zeros((length, steps.shape[1]))
            padded[: len(steps)] = steps[:length]
            pooled = []
            for i, size in enumerate(sizes):
                kernel = self.variables[f"groups/{feature}_combiner/conv_{i}/kernel"]
                bias = self.variables[f"groups/{feature}_combiner/conv_{i}/bias"]
                windows = [padded[s : s + size].reshape(-1) for s in range(length - size + 1)]
                pooled.append(relu(np.stack(windows) @ kernel.reshape(-1, kernel.shape[-1]) + bias).max(axis=0))
            rows.append(np.concatenate(pooled))
        return self.mlp(np.stack(rows), f"groups/{feature}_text_mlp", last=lambda x: x)

    # ---- layers

    def dense(self, x: Array, path: str) -> Array:
        return x @ self.variables[f"{path}/kernel"] + self.variables.get(f"{path}/bias", 0.0)

    def norm(self, x: Array, path: str) -> Array:
        mean, variance = self.variables[f"{path}/moving_mean"], self.variables[f"{path}/moving_variance"]
        if self.training:
            mean, variance = x.mean(axis=0), x.var(axis=0)
        scaled = (x - mean) / np.sqrt(variance + 1e-3)
        return scaled * self.variables[f"{path}/gamma"] + self.variables[f"{path}/beta"]

    def mlp(
        self,
        x: Array,
        path: str,
        activation: Callable[[Array], Array] = relu,
        last: Callable[[Array], Array] | None = None,
    ) -> Array:
        """Dense, batch norm where there is one, activation; `last` of the last layer."""
        count = sum(f"{path}/dense_{i}/kernel" in self.variables for i in range(9))
        assert count, f"no layer at {path}"
        for i in range(count):
            x = self.dense(x, f"{path}/dense_{i}")
            if f"{path}/bn_{i}/gamma" in self.variables:
                x = self.norm(x, f"{path}/bn_{i}")
            x = (last if last and i == count - 1 else activation)(x)
        return x

    def target_attention(self, query: Array, steps: list[Array], path: str) -> Array:
        rows = []
        for q, keys in zip(query, steps, strict=True):
            if not len(keys):
                rows.append(np.zeros_like(q))
                continue
            qs = np.tile(q, (len(keys), 1))
            pairs = np.concatenate([qs, keys, qs - keys, qs * keys], axis=1)
            scores = self.mlp(pairs, path, last=lambda x: x)[:, 0]
            rows.append(softmax(scores) @ keys)
        return np.stack(rows)

    # ---- models

    def multi_tower(self) -> dict[str, Array]:
        user = np.concatenate([self.summed("user"), self.summed("gender"), self.numbers["age"], self.mean("tags")], 1)
        item = np.concatenate([self.summed("item"), self.summed("price"), self.projected("age_row")], 1)
        user = self.mlp(self.norm(user, "model/user_input_bn"), "model/user_dnn")
        item = self.mlp(item, "model/item_dnn", np.tanh)  # without batch norm inside, none at the input either
        return self._scores(self.mlp(np.concatenate([user, item], 1), "model/final_dnn"))

    def self_attention(self) -> dict[str, Array]:
        path = "groups/user_past_attention"
        past = np.stack([encoded(self.variables, path, steps, 2) for steps in self.steps("seen", "item")])
        user = self.mlp(np.concatenate([self.summed("user"), self.numbers["age"], past], 1), "model/user_dnn", np.tanh)
        item = self.mlp(np.concatenate([self.summed("item"), self.summed("price")], 1), "model/item_dnn")
        return self._scores(self.mlp(np.concatenate([user, item], 1), "model/final_dnn"))

    def din(self) -> dict[str, Array]:
        user = np.concatenate([self.summed("user"), self.numbers["age"]], 1)
        user = self.mlp(self.norm(user, "model/user_input_bn"), "model/user_dnn")
        query = self.summed("item")
        pooled = self.target_attention(query, self.steps("seen", "item"), "model/history_attention/attention")
        return self._scores(self.mlp(np.concatenate([user, pooled, query], 1), "model/final_dnn"))

    def towers(self) -> tuple[Array, Array]:
        user = np.concatenate([self.summed("user"), self.summed("gender"), self.attended("seen", "item")], 1)
        item = np.concatenate([self.summed("item"), self.summed("price")], 1)
        return (
            self.mlp(user, "model/user_tower", last=lambda x: x),
            self.mlp(item, "model/item_tower", last=lambda x: x),
        )

    def dssm(self) -> dict[str, Array]:
        """Cosine, temperature 0.2."""
        user, item = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in self.towers())
        logits = (user * item).sum(axis=1) / 0.2
        result = {"user_tower_emb": user, "item_tower_emb": item, "logits": logits, "probs": sigmoid(logits)}
        return {**result, "similarity": user @ item.T / 0.2} if self.training else result

    def dssm_pointwise(self) -> dict[str, Array]:
        """Inner product, with a learned scale and offset."""
        user, item = self.towers()
        w, b = self.variables["model/similarity/sim_w"], self.variables["model/similarity/sim_b"]
        logits = np.abs(w) * (user * item).sum(axis=1) + b
        return {"user_tower_emb": user, "item_tower_emb": item, "logits": logits, "probs": sigmoid(logits)}

    def all_features(self) -> Array:
        parts = [self.summed("user"), self.summed("item"), self.numbers["age"], self.text_cnn("words", 4, [1, 2])]
        return np.concatenate(parts, 1)

    def dbmtl(self) -> dict[str, Array]:
        x = self.mlp(self.all_features(), "model/bottom_dnn")
        return self._tasks({"buy": x, "click": x})

    def dbmtl_experts(self) -> dict[str, Array]:
        x = self.all_features()
        experts = np.stack([self.mlp(x, f"model/mmoe/expert_{e}") for e in range(3)], axis=1)
        mixed = {}
        for place, task in enumerate(("buy", "click")):
            gates = np.stack([softmax(row) for row in self.dense(x, f"model/mmoe/gate_{place}")])
            mixed[task] = np.einsum("be,beh->bh", gates, experts)
        return self._tasks(mixed)

    def _tasks(self, inputs: dict[str, Array]) -> dict[str, Array]:
        click = self.mlp(inputs["click"], "model/click_dnn")
        buy = self.mlp(inputs["buy"], "model/buy_dnn")
        buy = self.mlp(np.concatenate([buy, click], 1), "model/buy_relation_dnn")
        result = {}
        for task, hidden in (("buy", buy), ("click", click)):
            logits = self.dense(hidden, f"model/{task}_output")[:, 0]
            result |= {f"logits_{task}": logits, f"probs_{task}": sigmoid(logits)}
        return result

    def _deepfm_parts(self, fm_features: list[Array]) -> tuple[Array, Array, Array]:
        wide = self.summed("user", "user_wide") + self.summed("item", "item_wide") + self.summed("tags", "tags_wide")
        wide = wide + self.projected("age_row", "age_row_wide_projection")
        fm = sum(a * b for i, a in enumerate(fm_features) for b in fm_features[:i])
        deep = np.concatenate([self.summed("user"), self.summed("item"), self.mean("tags"), self.summed("price")], 1)
        return wide, np.asarray(fm), self.mlp(deep, "model/dnn")

    def deepfm(self) -> dict[str, Array]:
        fields = [self.summed("user"), self.summed("item"), self.mean("tags"), self.summed("price")]
        wide, fm, deep = self._deepfm_parts(fields)
        logits = wide[:, 0] + fm.sum(axis=1) + self.dense(deep, "model/output")[:, 0]
        return {"logits": logits, "probs": sigmoid(logits)}

    def deepfm_final(self) -> dict[str, Array]:
        wide, fm, deep = self._deepfm_parts([self.summed("user"), self.mean("tags")])
        return self._scores(self.mlp(np.concatenate([wide, fm, deep], 1), "model/final_dnn"))

    def _scores(self, hidden: Array) -> dict[str, Array]:
        logits = self.dense(hidden, "model/output")[:, 0]
        return {"logits": logits, "probs": sigmoid(logits)}

    # ---- losses

    def kernels_l2(self, scale: float) -> float:
        return scale * sum((v**2).sum() / 2 for path, v in self.variables.items() if path.endswith("/kernel"))

    def losses(self, model: str, predictions: dict[str, Array]) -> dict[str, float]:
        """By name; the configs' factors are written out here."""
        click, buy = (self.frame[name].to_numpy(np.float64) for name in ("click", "buy"))
        weight = self.frame["weight"].to_numpy(np.float64)
        if model == "dssm":
            return {
                "softmax_cross_entropy_loss": self.in_batch_softmax(predictions["similarity"], click),
                "regularization_loss": self.kernels_l2(0.01),
            }
        if model == "dbmtl":
            return {
                "cross_entropy_loss_buy": 2 * cross_entropy(buy, predictions["logits_buy"]),
                "cross_entropy_loss_click": cross_entropy(click, predictions["logits_click"]),
                "regularization_loss": self.kernels_l2(0.01),
            }
        if model == "dbmtl_experts":
            space = weight * np.where(click > 0, 2, 0.5)
            return {
                "cross_entropy_loss_buy": 2 * cross_entropy(buy, predictions["logits_buy"], space),
                "cross_entropy_loss_click": cross_entropy(click, predictions["logits_click"]),
                "regularization_loss": self.kernels_l2(0.01),
            }
        weighted = model in ("dssm_pointwise", "deepfm")
        regularization = self.kernels_l2(0.02 if model == "deepfm_final" else 0.01)
        looked_up = self._looked_up(model)
        regularization += sum((x**2).sum() / 2 for x in looked_up[1]) * looked_up[0]
        loss = cross_entropy(click, predictions["logits"], weight if weighted else None)
        return {"cross_entropy_loss": loss, "regularization_loss": regularization}

    def _looked_up(self, model: str) -> tuple[float, list[Array]]:
        """embedding_regularization, and the vectors under it: those of each feature and table once."""
        if model == "multi_tower":
            summed = [self.summed(name) for name in ("user", "gender", "item", "price")]
            return 0.02, [*summed, self.mean("tags")]
        if model.startswith("deepfm"):
            deep = [self.summed("user"), self.summed("item"), self.mean("tags"), self.summed("price")]
            wide = [self.summed(name, f"{name}_wide") for name in ("user", "item", "tags")]
            # A group of its own over fewer features asks for vectors of its own.
            again = [self.summed("user")] if model == "deepfm_final" else []
            return 0.03, [*deep, *wide, *again]
        return 0.0, []

    def in_batch_softmax(self, similarity: Array, positives: Array) -> float:
        items = self.frame["item"].to_numpy()
        total = 0.0
        for i, row in enumerate(similarity):
            others = row[(items != items[i]) | (np.arange(len(row)) == i)]  # its own item is nobody's negative
            total += positives[i] * (np.log(np.exp(others).sum()) - row[i])
        return float(total / positives.sum())
