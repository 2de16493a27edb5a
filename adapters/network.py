"""The network in TensorFlow: piecewise-linear numbers and category embeddings into an ensemble of perceptrons.

One compiled function runs a whole epoch. Learning rate, weight decay, dropout, bin edges and the data are its
arguments, so that a fold or a trial of the same shape never traces again. A number is placed between two knots once,
before the first epoch; in every step its encoding is then a line between two rows of a small table, as a category's is
one row. Members of an ensemble are one batched multiplication. What scores is a running average of the weights that
are trained: it carries less of the last batches' noise. Every random choice is stateless and follows from a seed;
operations are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from adapters import saved_model
from lifecycle.encoding import Encoded, Encoding

if TYPE_CHECKING:
    import tensorflow as tf

Vector = npt.NDArray[np.float32]

EMBEDDING = 8
"""Width of the embedding of one feature."""
AVERAGED = 0.25
"""Share of an epoch that the running average of weights looks back, so to speak: its time constant."""
_PREDICT_ROWS = 16_384
_ready = False


def tensorflow() -> Any:
    """Import TensorFlow, with operations whose results do not depend on timing."""
    global _ready
    tf = saved_model.tensorflow()
    if not _ready:
        tf.config.experimental.enable_op_determinism()
        tf.get_logger().setLevel("ERROR")
        _ready = True
    return tf


@dataclass(frozen=True)
class Shape:
    """What a compiled network depends on; networks of equal shape share it.

    Parameters
    ----------
    numbers
        Count of numeric features.
    vocabulary
        Codes of each categorical feature, buckets included.
    bins
        Piecewise-linear bins of a number, at most.
    units, layers
        Width and count of the hidden layers.
    members
        Networks trained side by side and averaged.
    """

    numbers: int
    vocabulary: tuple[int, ...]
    bins: int
    units: int
    layers: int
    members: int

    @property
    def inputs(self) -> int:
        """Width of the first layer's input."""
        return (self.numbers + len(self.vocabulary)) * EMBEDDING


@dataclass(frozen=True)
class Optimisation:
    """What a fit may vary without compiling anew.

    Parameters
    ----------
    learning_rate, weight_decay
        Of AdamW (Loshchilov and Hutter 2019).
    dropout
        Share of hidden units left out in a step, below 1.
    batch_size
        Rows a gradient step.
    """

    learning_rate: float
    weight_decay: float
    dropout: float
    batch_size: int


@dataclass(frozen=True)
class Placed:
    """Rows as the network's steps read them: tensors, made once for all epochs.

    Parameters
    ----------
    positions
        Shape (rows, numbers), float32: the knot below each number plus how far it is on the way to the next, 0 to
        `Shape.bins`; `Shape.bins` + 1 where it is missing.
    codes
        Shape (rows, categories), int32.
    """

    positions: Any
    codes: Any

    def __len__(self) -> int:
        return int(self.codes.shape[0])


def bin_edges(encoding: Encoding, bins: int) -> tuple[Vector, Vector]:
    """Lower ends and inverse widths of the bins, each of shape (numeric features, bins).

    Features with fewer bins are padded by bins of inverse width 0 at the largest number there is: none is above it.
    """
    low = np.full((len(encoding.numeric), bins), np.finfo(np.float32).max, dtype=np.float32)
    inverse = np.zeros_like(low)
    for place, feature in enumerate(encoding.numeric):
        knots = feature.knots(bins)
        count = len(knots) - 1
        low[place, :count] = knots[:-1]
        with np.errstate(over="ignore", divide="ignore"):
            inverse[place, :count] = np.minimum(1 / np.diff(knots), np.float32(1e30))
    return low, inverse


class Network:
    """A compiled ensemble; its weights are set by `initialise` or `weights` and changed by `train_epoch`."""

    def __init__(self, shape: Shape) -> None:
        tf = tensorflow()
        self.shape = shape
        self._offsets = np.cumsum([0, *shape.vocabulary[:-1]]).astype(np.int32)[: len(shape.vocabulary)]
        self.parameters = [tf.Variable(tf.zeros(size), trainable=True, name=name) for name, size in self._sizes()]
        self._averages = [tf.Variable(v) for v in self.parameters]
        self._momentum = [tf.Variable(tf.zeros_like(v)) for v in self.parameters]
        self._scale = [tf.Variable(tf.zeros_like(v)) for v in self.parameters]
        self._step = tf.Variable(0.0)
        self._low = tf.Variable(tf.zeros([shape.numbers, shape.bins]), trainable=False)
        self._inverse = tf.Variable(tf.zeros([shape.numbers, shape.bins]), trainable=False)
        placed = [
            tf.TensorSpec([None, shape.numbers], tf.float32),
            tf.TensorSpec([None, len(shape.vocabulary)], tf.int32),
        ]
        rows, whole, real = (
            tf.TensorSpec([None], tf.float32),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.float32),
        )
        self._epoch = tf.function(
            self._run_epoch,
            input_signature=[*placed, rows, rows, tf.TensorSpec([None], tf.int32), whole, real, real, real, whole],
        )
        self._score = tf.function(self._mean_logits, input_signature=placed)
        self._place = tf.function(self._positions, input_signature=[tf.TensorSpec([None, shape.numbers], tf.float32)])

    def _sizes(self) -> list[tuple[str, list[int]]]:
        shape, wide = self.shape, self.shape.members * EMBEDDING
        sizes: list[tuple[str, list[int]]] = []
        if shape.numbers:
            sizes += [("number", [shape.numbers, shape.bins + 2, wide])]
        if shape.vocabulary:
            sizes += [("category", [sum(shape.vocabulary), wide])]
        width = shape.inputs
        for layer in range(shape.layers):
            sizes += [(f"kernel_{layer}", [shape.members, width, shape.units])]
            sizes += [(f"bias_{layer}", [shape.members, 1, shape.units])]
            width = shape.units
        return [*sizes, ("kernel_out", [shape.members, width, 1]), ("bias_out", [shape.members, 1, 1])]

    def initialise(self, encoding: Encoding, seed: int) -> None:
        """Fresh weights and optimiser state; the bins follow the encoding."""
        low, inverse = bin_edges(encoding, self.shape.bins)
        self._low.assign(low)
        self._inverse.assign(inverse)
        rng = np.random.default_rng([seed, 1])
        for variable, (name, size) in zip(self.parameters, self._sizes(), strict=True):
            if name.startswith("bias"):
                values = np.zeros(size, dtype=np.float32)
            elif name.startswith("kernel"):
                limit = (6 / (size[1] + size[2])) ** 0.5
                values = rng.uniform(-limit, limit, size).astype(np.float32)
            else:
                values = rng.normal(0, 0.3, size).astype(np.float32)
            variable.assign(values)
        self._average_from_here()
        for variable in (*self._momentum, *self._scale, self._step):
            variable.assign(tensorflow().zeros_like(variable))

    def restore(self, encoding: Encoding, weights: list[Vector]) -> None:
        """Weights that were fitted before, with the encoding they were fitted on."""
        self.initialise(encoding, 0)
        self.weights = weights

    @property
    def variables(self) -> list[Any]:
        """All that scoring reads: weights and the bins' edges."""
        return [*self._averages, self._low, self._inverse]

    def mean_logits(self, numbers: Any, codes: Any) -> Any:
        """Mean logit of the members, shape (rows,), as a tensor: usable inside another compiled function."""
        return self._mean_logits(self._positions(numbers), codes)

    def place(self, encoded: Encoded) -> Placed:
        """Place numbers between the knots of the encoding that was initialised last."""
        tf = tensorflow()
        parts = [
            self._place(tf.constant(encoded.numbers[start : start + _PREDICT_ROWS]))
            for start in range(0, max(len(encoded), 1), _PREDICT_ROWS)
        ]
        return Placed(tf.concat(parts, axis=0), tf.constant(encoded.codes))

    @property
    def weights(self) -> list[Vector]:
        """Copies of all averaged weights, in a fixed order."""
        return [variable.numpy() for variable in self._averages]

    @weights.setter
    def weights(self, values: list[Vector]) -> None:
        for variable, value in zip(self.parameters, values, strict=True):
            variable.assign(value)
        self._average_from_here()

    def _average_from_here(self) -> None:
        for average, variable in zip(self._averages, self.parameters, strict=True):
            average.assign(variable)

    def train_epoch(
        self,
        placed: Placed,
        labels: Any,
        weights: Any,
        order: npt.NDArray[np.int32],
        how: Optimisation,
        seed: int,
    ) -> float:
        """One pass over the rows in the given order; the last, incomplete batch is left out.

        Parameters
        ----------
        placed
            All rows.
        labels, weights
            Tensors of shape (rows,); weights have mean 1.
        order
            Permutation of the rows.
        how
            Optimisation.
        seed
            Of this epoch's dropout.

        Returns
        -------
        float
            Mean loss over the epoch, in nats.
        """
        tf = tensorflow()
        batch = min(how.batch_size, len(order))
        return float(
            self._epoch(
                placed.positions,
                placed.codes,
                labels,
                weights,
                tf.constant(order),
                tf.constant(batch),
                tf.constant(how.learning_rate, tf.float32),
                tf.constant(how.weight_decay, tf.float32),
                tf.constant(how.dropout, tf.float32),
                tf.constant(seed),
            )
        )

    def logits(self, placed: Placed) -> npt.NDArray[np.float64]:
        """Mean logit of the members for each row."""
        if len(placed) == 0:
            return np.empty(0)
        parts = [
            self._score(
                placed.positions[start : start + _PREDICT_ROWS],
                placed.codes[start : start + _PREDICT_ROWS],
            ).numpy()
            for start in range(0, len(placed), _PREDICT_ROWS)
        ]
        return np.concatenate(parts).astype(np.float64)

    def _positions(self, numbers: tf.Tensor) -> tf.Tensor:
        """Each number's place among its knots: piecewise-linear bins (Gorishniy et al. 2022)."""
        tf = tensorflow()
        if not self.shape.numbers:
            return numbers
        column = tf.transpose(numbers)  # features, rows
        missing = tf.math.is_nan(column)
        known = tf.where(missing, 0.0, column)
        # Each bin adds how much of it lies below the number; padded ones have no width and add nothing. Written
        # without a search, so that the graph has an equal in ONNX.
        covered = (known[:, :, None] - self._low[:, None, :]) * self._inverse[:, None, :]
        places = tf.reduce_sum(tf.clip_by_value(covered, 0.0, 1.0), axis=2)
        return tf.transpose(tf.where(missing, float(self.shape.bins + 1), places))

    def _table(self, parameters: tf.Tensor) -> tf.Tensor:
        """Encoding at each knot, then of a missing number: shape (numbers, bins + 2, width).

        The parameters are what each bin adds, so that near knots learn together.
        """
        tf = tensorflow()
        bins = self.shape.bins
        start = parameters[:, bins + 1 :]
        knots = start + tf.concat([tf.zeros_like(start), tf.cumsum(parameters[:, :bins], axis=1)], axis=1)
        return tf.concat([knots, parameters[:, bins : bins + 1]], axis=1)

    def _member_logits(
        self,
        weights: list[tf.Variable],
        positions: tf.Tensor,
        codes: tf.Tensor,
        dropout: Callable[[tf.Tensor, int], tf.Tensor],
    ) -> tf.Tensor:
        tf = tensorflow()
        shape = self.shape
        variables = iter(weights)
        parts = []
        if shape.numbers:
            # A multiplication by mostly zeros: scattering gradients back to single rows would take twice as long.
            near = tf.abs(tf.transpose(positions)[:, :, None] - tf.range(shape.bins + 2, dtype=tf.float32))
            encoded = tf.matmul(tf.nn.relu(1.0 - near), self._table(next(variables)))
            parts.append(tf.transpose(encoded, [1, 0, 2]))
        if shape.vocabulary:
            parts.append(tf.gather(next(variables), codes + self._offsets))
        hidden = tf.concat(parts, axis=1)  # rows, features, members * width
        rows = tf.shape(hidden)[0]
        features = shape.numbers + len(shape.vocabulary)
        hidden = tf.reshape(hidden, [rows, features, shape.members, EMBEDDING])
        hidden = tf.reshape(tf.transpose(hidden, [2, 0, 1, 3]), [shape.members, rows, shape.inputs])
        for layer in range(shape.layers):
            hidden = dropout(tf.nn.relu(tf.matmul(hidden, next(variables)) + next(variables)), layer)
        return tf.squeeze(tf.matmul(hidden, next(variables)) + next(variables), axis=2)

    def _mean_logits(self, positions: tf.Tensor, codes: tf.Tensor) -> tf.Tensor:
        logits = self._member_logits(self._averages, positions, codes, lambda hidden, _: hidden)
        return tensorflow().reduce_mean(logits, axis=0)

    def _run_epoch(
        self,
        positions: tf.Tensor,
        codes: tf.Tensor,
        labels: tf.Tensor,
        weights: tf.Tensor,
        order: tf.Tensor,
        batch: tf.Tensor,
        learning_rate: tf.Tensor,
        weight_decay: tf.Tensor,
        dropout: tf.Tensor,
        seed: tf.Tensor,
    ) -> tf.Tensor:
        tf = tensorflow()
        batches = tf.size(order) // batch
        keep_at_most = tf.maximum(1.0 - 1.0 / (AVERAGED * tf.cast(batches, tf.float32)), 0.0)

        def one(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            rows = order[number * batch : (number + 1) * batch]

            def drop(hidden: tf.Tensor, layer: int) -> tf.Tensor:
                chance = tf.random.stateless_uniform(tf.shape(hidden), tf.stack([seed, number * 16 + layer]))
                return tf.where(chance < dropout, 0.0, hidden / (1.0 - dropout))

            with tf.GradientTape() as tape:
                logits = self._member_logits(self.parameters, tf.gather(positions, rows), tf.gather(codes, rows), drop)
                target = tf.broadcast_to(tf.gather(labels, rows), tf.shape(logits))
                losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logits)
                # Mean over rows, sum over members: each member's gradient is what it would be alone.
                loss = tf.reduce_sum(tf.reduce_mean(losses * tf.gather(weights, rows), axis=1))
            gradients = tape.gradient(loss, self.parameters)
            self._step.assign_add(1.0)
            first, second = 1.0 - tf.pow(0.9, self._step), 1.0 - tf.pow(0.999, self._step)
            # The first steps count for little: they start from chance.
            keep = tf.minimum(keep_at_most, self._step / (self._step + 10.0))
            for variable, average, gradient, momentum, scale in zip(
                self.parameters, self._averages, gradients, self._momentum, self._scale, strict=True
            ):
                dense = tf.convert_to_tensor(gradient)
                momentum.assign(0.9 * momentum + 0.1 * dense)
                scale.assign(0.999 * scale + 0.001 * tf.square(dense))
                step = (momentum / first) / (tf.sqrt(scale / second) + 1e-8)
                variable.assign_sub(learning_rate * (step + weight_decay * variable))
                average.assign(keep * average + (1.0 - keep) * variable)
            return number + 1, total + loss

        _, total = tf.while_loop(lambda number, _: number < batches, one, (0, 0.0), parallel_iterations=1)
        return total / tf.cast(batches * self.shape.members, tf.float32)
