"""Which features a trained model can do without, by learned noise: variational dropout after training.

EasyRec learns such noise while it trains the model. Here the model is trained already and stays as it is: what is
learned is only how much of each feature may be replaced by its mean. So it can be asked of any model, any time, and
says what this model uses, not what another one would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from easyrec_lite._insight.scoring import Scorer, take_rows
from easyrec_lite.embeddings import Concat
from easyrec_lite.errors import UserError
from easyrec_lite.features import Column, Encoded
from easyrec_lite.models import Recommender
from easyrec_lite.models.groups import GroupInput, History
from easyrec_lite.models.layout import AttentionSpec

Track = Callable[[Sequence[Any], str], Iterable[Any]]

_TEMPERATURE = 0.1  # of the relaxed coin, as in EasyRec


def variational_dropout(
    scorer: Scorer,
    *,
    cost: float = 1e-4,
    steps: int = 300,
    batch_size: int = 1024,
    learning_rate: float = 0.1,
    seed: int = 1,
    track: Track | None = None,
) -> pd.DataFrame:
    """Learns a dropout probability for each feature (Gal et al., 2017, relaxed coins of temperature 0.1).

    In each row a feature is replaced by its mean over the batch with its probability p; minimised over all p is the
    model's loss plus `cost` times the sum of the 1 - p. A feature is kept as far as it lowers the loss by more than it
    costs, beside what the others tell: of two features that tell the same, one may be dropped.

    Args:
        scorer: the rows and the model; the model does not change.
        cost: loss that a feature must save to be kept (EasyRec's regularization_lambda over the batch size).
        steps: of Adam.
        batch_size: rows a step.
        learning_rate: of Adam, on the log-odds of p.
        seed: of rows and noise.
        track: shows the progress over a sequence with a title.

    Returns:
        One row a feature that stands in some group (a pooled history of `sequence_features`: under its own name), most
        needed first: `feature`, `kept` (1 - p), `dropout` (p).

    Raises:
        UserError: settings out of range.
    """
    if cost <= 0 or steps < 1 or batch_size < 2:
        raise UserError(
            f"Found cost {cost}, steps {steps}, batch_size {batch_size}; expected above 0, 1 and 2 or more."
        )
    noise = _Noise(scorer.recommender)
    targets = {name: scorer.columns[name] for name in scorer.recommender.columns}
    encoded = {name: scorer.encoded(name) for name in scorer.recommender.features}
    step = tf.function(noise.gradient, reduce_retracing=True, autograph=False)
    rng = np.random.default_rng(seed)
    logits, first, second = np.zeros((3, len(noise.names)), np.float32)
    numbers = list(range(1, steps + 1))
    for number in track(numbers, "variational dropout") if track else numbers:
        places = rng.integers(0, scorer.rows, min(batch_size, scorer.rows))
        batch = {name: take_rows(value, places) for name, value in encoded.items()}
        columns = {name: take_rows(column, places) for name, column in targets.items()}
        draw = tf.constant([seed & 0x7FFFFFFF, number], tf.int32)
        gradient = step(tf.constant(logits), batch, columns, draw, tf.constant(cost)).numpy()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        size = np.sqrt(second / (1 - 0.999**number)) + 1e-8
        logits = logits - learning_rate * first / (1 - 0.9**number) / size
    dropout = 1 / (1 + np.exp(-logits.astype(np.float64)))
    frame = pd.DataFrame({"feature": noise.names, "kept": 1 - dropout, "dropout": dropout})
    return frame.sort_values("kept", ascending=False, ignore_index=True, kind="stable")


class _Noise:
    """The model with features partly replaced by their means.

    Args:
        recommender: restored.

    Attributes:
        names: what has a probability, in their order.
    """

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        # By group, the name that owns each column; by group with histories, those of its queries and keys.
        self._columns: dict[str, list[str]] = {}
        self._histories: dict[str, list[tuple[list[str], list[str]]]] = {}
        for layout in recommender.layouts.values():
            if layout.histories:
                self._histories[layout.name] = [self._of_attention(spec) for spec in layout.histories]
            else:
                self._columns[layout.name] = [slot.name for slot in layout.slots for _ in range(slot.width)]
        owners = [
            *self._columns.values(),
            *(part for parts in self._histories.values() for pair in parts for part in pair),
        ]
        self.names = list(dict.fromkeys(name for columns in owners for name in columns if name))
        self._place = {name: place for place, name in enumerate(self.names)}

    def gradient(
        self,
        logits: tf.Tensor,
        encoded: Mapping[str, Encoded],
        columns: Mapping[str, Column],
        draw: tf.Tensor,
        cost: tf.Tensor,
    ) -> tf.Tensor:
        """Of loss and cost by the log-odds `[F]` of dropout."""
        recommender = self._recommender
        batch = recommender.assemble(encoded, columns)
        weights = recommender.collection.weights(recommender.collection.gather(batch.plan))
        outputs = recommender.collection.outputs(weights, batch.plan)
        groups = recommender.groups(outputs, batch.numbers)
        rows = tf.shape(next(iter(batch.targets.labels.values())))[0]
        uniform = tf.random.stateless_uniform([rows, len(self.names)], draw, 1e-6, 1 - 1e-6)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            dropped = tf.sigmoid((logits + tf.math.log(uniform) - tf.math.log(1 - uniform)) / _TEMPERATURE)
            noisy = {name: self._noisy(name, group, 1 - dropped) for name, group in groups.items()}
            predictions = recommender.model(noisy, training=False)
            loss = tf.add_n(list(recommender.model.task_losses(predictions, batch.targets).values()))
            total = loss + cost * tf.reduce_sum(tf.sigmoid(-logits))
        return tape.gradient(total, logits)

    def _noisy(self, name: str, group: GroupInput, kept: tf.Tensor) -> GroupInput:
        if not isinstance(group, tuple):
            return self._mixed(group, kept, self._columns[name])
        histories = []
        for history, (query, keys) in zip(group, self._histories[name], strict=True):
            assert isinstance(history, History)
            lengths = history.row_splits[1:] - history.row_splits[:-1]
            steps = self._mixed(history.keys, tf.repeat(kept, lengths, axis=0), keys)
            histories.append(History(self._mixed(history.query, kept, query), steps, history.row_splits))
        return tuple(histories)

    def _mixed(self, values: tf.Tensor, kept: tf.Tensor, owners: list[str]) -> tf.Tensor:
        """Values `[N, D]`, each column as far kept `[N, F]` as its owner is."""
        mean = tf.math.divide_no_nan(tf.reduce_sum(values, 0, keepdims=True), tf.cast(tf.shape(values)[0], tf.float32))
        # A column without an owner, such as padding, stays.
        ones = tf.ones([tf.shape(kept)[0], 1])
        places = [self._place.get(owner, len(self.names)) for owner in owners]
        share = tf.gather(tf.concat([kept, ones], axis=1), places, axis=1)
        return share * values + (1 - share) * mean

    def _of_attention(self, spec: AttentionSpec) -> tuple[list[str], list[str]]:
        query, keys = self._owners(spec.keys), self._owners(spec.history)
        return query + [""] * (len(keys) - len(query)), keys

    def _owners(self, places: Sequence[int]) -> list[str]:
        collection = self._recommender.collection
        owners: list[str] = []
        for place in places:
            request = collection.requests[place]
            features = request.features if isinstance(request, Concat) else (request.feature,)
            table = request.tables[0] if isinstance(request, Concat) else request.table
            owners += [feature for feature in features for _ in range(collection.tables[table].dim)]
        return owners
