"""The network reads what the encoding says, learns what a line cannot, and repeats itself to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from adapters.network import Network, Optimisation, Placed, Shape, bin_edges, tensorflow
from lifecycle.encoding import GRID, CategoricalEncoding, Encoded, Encoding, NumericEncoding
from lifecycle.metrics import roc_auc

pytestmark = pytest.mark.requirement("R3.5", "R3.6")

EVEN = NumericEncoding("even", 0.0, 1.0, tuple(np.linspace(-2, 2, GRID + 1)))
TWO_VALUES = NumericEncoding("two", 0.0, 1.0, (0.0,) * 100 + (1.0,) * (GRID - 99))
CONSTANT = NumericEncoding("constant", 7.0, 1.0, (0.0,) * (GRID + 1))
KIND = CategoricalEncoding("kind", ("a", "b"))
ENCODING = Encoding((EVEN, TWO_VALUES, CONSTANT), (KIND,))
HOW = Optimisation(learning_rate=0.02, weight_decay=0.0, dropout=0.0, batch_size=128)


def shape(encoding: Encoding = ENCODING, members: int = 1, layers: int = 1) -> Shape:
    sizes = tuple(feature.size for feature in encoding.categorical)
    return Shape(len(encoding.numeric), sizes, bins=4, units=8, layers=layers, members=members)


def encoded(count: int, encoding: Encoding = ENCODING) -> tuple[Encoded, np.ndarray]:
    """Rows whose label no line through the features could tell: far from the middle, or of the last kind."""
    rng = np.random.default_rng(3)
    numbers = np.zeros((count, len(encoding.numeric)), np.float32)
    codes = np.zeros((count, len(encoding.categorical)), np.int32)
    if encoding.numeric:
        numbers[:, 0] = rng.uniform(-2, 2, count)
        numbers[::11, 0] = np.nan
    if encoding.categorical:
        codes[:, 0] = rng.integers(0, encoding.categorical[0].size, count)
    told = np.nan_to_num(np.abs(numbers[:, 0])) > 1 if encoding.numeric else codes[:, 0] == 3
    return Encoded(numbers, codes), told.astype(np.float32)


def train(network: Network, rows: Encoded, labels: np.ndarray, epochs: int, weights: np.ndarray | None = None) -> float:
    tf = tensorflow()
    placed = network.place(rows)
    share = np.ones(len(rows), np.float32) if weights is None else weights
    loss = float("nan")
    for epoch in range(epochs):
        order = np.random.default_rng(epoch).permutation(len(rows)).astype(np.int32)
        loss = network.train_epoch(placed, tf.constant(labels), tf.constant(share), order, HOW, epoch)
    return loss


@pytest.mark.parametrize(
    ("number", "place"),
    [(-2.0, 0.0), (-1.5, 0.5), (0.0, 2.0), (0.25, 2.25), (2.0, 4.0), (-1e30, 0.0), (1e30, 4.0), (np.nan, 5.0)],
)
def test_a_number_lies_between_its_knots(number: float, place: float):
    network = Network(shape())
    network.initialise(ENCODING, 0)
    numbers = np.array([[number, 0, 0]], np.float32)
    assert network.place(Encoded(numbers, np.zeros((1, 1), np.int32))).positions.numpy()[0, 0] == pytest.approx(place)


@pytest.mark.parametrize(("number", "places"), [(0.0, [0, 0]), (0.5, [0.5, 0]), (1.0, [1, 0]), (9.0, [1, 0])])
def test_a_feature_of_fewer_values_has_fewer_knots_and_a_constant_one_none(number: float, places: list[float]):
    network = Network(shape())
    network.initialise(ENCODING, 0)
    numbers = np.array([[0, number, number]], np.float32)
    placed = network.place(Encoded(numbers, np.zeros((1, 1), np.int32)))
    assert placed.positions.numpy()[0, 1:].tolist() == pytest.approx(places)


def test_bins_that_a_feature_does_not_have_are_never_reached():
    low, inverse = bin_edges(ENCODING, 4)
    assert low.shape == inverse.shape == (3, 4)
    assert (low[1, 1:] == np.finfo(np.float32).max).all()
    assert not inverse[1, 1:].any()
    assert not inverse[2].any()


@pytest.mark.parametrize(
    "encoding", [ENCODING, Encoding((EVEN,), ()), Encoding((), (KIND,))], ids=["both", "numbers", "categories"]
)
@pytest.mark.parametrize("layers", [1, 2])
def test_it_learns_what_no_line_tells(encoding: Encoding, layers: int):
    rows, labels = encoded(2_000, encoding)
    network = Network(shape(encoding, layers=layers))
    network.initialise(encoding, 1)
    first, last = train(network, rows, labels, 1), train(network, rows, labels, 5)
    assert last < first
    assert roc_auc(labels, network.logits(network.place(rows))) > 0.95


def test_the_same_seed_gives_the_same_weights_to_the_last_bit_and_another_seed_does_not():
    rows, labels = encoded(500)

    def trained(seed: int) -> list[np.ndarray]:
        network = Network(shape(members=2))
        network.initialise(ENCODING, seed)
        train(network, rows, labels, 2)
        return network.weights

    one, again, other = trained(1), trained(1), trained(2)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_network_that_is_initialised_again_remembers_nothing():
    rows, labels = encoded(500)
    used, fresh = Network(shape()), Network(shape())
    used.initialise(ENCODING, 5)
    train(used, rows, labels, 2)
    for network in (used, fresh):
        network.initialise(ENCODING, 1)
        train(network, rows, labels, 1)
    assert all(np.array_equal(a, b) for a, b in zip(used.weights, fresh.weights, strict=True))


def test_a_member_of_an_ensemble_learns_as_it_would_alone():
    rows, labels = encoded(1_000)
    both = Network(shape(members=2))
    both.initialise(ENCODING, 1)
    number, category, *layers = both.weights
    alone = []
    for member in range(2):
        network = Network(shape(members=1))
        network.initialise(ENCODING, 0)
        mine = slice(member * 8, member * 8 + 8)
        network.weights = [number[:, :, mine], category[:, mine], *(layer[member : member + 1] for layer in layers)]
        train(network, rows, labels, 2)
        alone.append(network.logits(network.place(rows)))
    train(both, rows, labels, 2)
    assert both.logits(both.place(rows)) == pytest.approx(np.mean(alone, axis=0), abs=1e-3)


def test_rows_of_no_weight_teach_nothing():
    rows, labels = encoded(1_000)
    wrong = np.where(np.arange(1_000) < 500, labels, 1 - labels).astype(np.float32)
    weights = np.where(np.arange(1_000) < 500, 2.0, 0.0).astype(np.float32)

    def trained(taught: np.ndarray) -> list[np.ndarray]:
        network = Network(shape())
        network.initialise(ENCODING, 1)
        train(network, rows, taught, 1, weights)
        return network.weights

    assert all(np.array_equal(a, b) for a, b in zip(trained(labels), trained(wrong), strict=True))


def test_weights_that_are_given_back_score_as_before():
    rows, labels = encoded(300)
    network, other = Network(shape()), Network(shape())
    network.initialise(ENCODING, 1)
    train(network, rows, labels, 1)
    other.restore(ENCODING, network.weights)
    assert np.array_equal(network.logits(network.place(rows)), other.logits(other.place(rows)))


def test_scores_do_not_depend_on_how_many_rows_are_scored_at_once(monkeypatch: pytest.MonkeyPatch):
    rows, _ = encoded(300)
    network = Network(shape())
    network.initialise(ENCODING, 1)
    whole = network.logits(network.place(rows))
    monkeypatch.setattr("adapters.network._PREDICT_ROWS", 7)
    assert network.logits(network.place(rows)) == pytest.approx(whole, abs=1e-6)


def test_no_rows_have_no_scores():
    network = Network(shape())
    network.initialise(ENCODING, 1)
    none = network.place(Encoded(np.empty((0, 3), np.float32), np.empty((0, 1), np.int32)))
    assert isinstance(none, Placed)
    assert len(none) == 0
    assert network.logits(none).shape == (0,)


def test_a_table_smaller_than_a_batch_is_one_batch():
    rows, labels = encoded(50)
    network = Network(shape())
    network.initialise(ENCODING, 1)
    assert np.isfinite(train(network, rows, labels, 1))
