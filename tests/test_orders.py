"""Orders: which row is visited when, by themselves and through fit and batches."""

from __future__ import annotations

import pickle
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import schuss
from schuss import orders
from schuss.errors import DataError, InvalidArgument, InvalidType, SchussWarning
from schuss.orders import Facts

ORDERS = [
    "shuffle",
    "sequential",
    "replacement",
    "weighted",
    "stratified",
    "stratified(balanced=True)",
    "blocks(rows=4, buffer=3)",
    "blocks(rows=20, buffer=1)",
    "blocks",
]
PERMUTING = [text for text in ORDERS if text not in ("replacement", "weighted")]
PERMUTING.remove("stratified(balanced=True)")


def facts(n: int, seed: int = 0, classes: int = 2, **more) -> Facts:
    rng = np.random.default_rng([n, classes])
    labels = rng.permutation(np.arange(n) ** 2 // max(n, 1) % classes)
    weights = rng.integers(0, 4, n).astype(float)
    weights[n // 2] = 2.0
    return Facts(n, labels=labels, weights=weights, seed=seed, **more)


def visits(text: str, n: int, **more) -> orders.Visits:
    return orders.get(text).bind(facts(n, **more))


@pytest.mark.parametrize("text", ORDERS)
def test_text_form_and_repr_come_back(text):
    order = orders.get(text)
    assert orders.get(str(order)) == order
    assert eval(repr(order), {"schuss": schuss}) == order
    assert pickle.loads(pickle.dumps(order)) == order
    assert hash(order) == hash(orders.get(text))


def test_every_row_of_the_table_is_tested():
    assert {text.split("(")[0] for text in ORDERS} == set(orders.names())


# ---- Pure functions of seed, epoch and position --------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 10, 97, 1000])
@pytest.mark.parametrize("text", PERMUTING)
def test_an_epoch_visits_each_row_once(text, n):
    order = visits(text, n)
    assert order.length == n
    for epoch in (0, 1, 7, 10**6):
        assert np.array_equal(np.sort(order.indices(epoch, 0, n)), np.arange(n))


@pytest.mark.parametrize("text", ORDERS)
@given(data=st.data())
def test_slices_do_not_depend_on_the_cuts(text, data):
    n = data.draw(st.integers(1, 200), "n")
    epoch = data.draw(st.integers(0, 5), "epoch")
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=6), "cuts"))
    order = visits(text, n)
    edges = [0, *cuts, n]
    pieces = [order.indices(epoch, a, b) for a, b in pairwise(edges)]
    assert [piece.size for piece in pieces] == np.diff(edges).tolist()
    assert np.array_equal(np.concatenate(pieces), order.indices(epoch, 0, n))


@pytest.mark.parametrize("text", ORDERS)
def test_nothing_is_remembered(text):
    first, second = visits(text, 300), visits(text, 300)
    late = first.indices(5, 100, 200)
    first.indices(0, 0, 300)
    first.indices(9, 7, 8)
    assert np.array_equal(first.indices(5, 100, 200), late)
    assert np.array_equal(second.indices(5, 100, 200), late)


@pytest.mark.parametrize("text", [text for text in ORDERS if text != "sequential"])
def test_seeds_and_epochs_differ(text):
    n = 400
    seen = [
        visits(text, n, seed=seed).indices(epoch, 0, n).tobytes()
        for seed in (0, 1, 2**63)
        for epoch in (0, 1, 2)
    ]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("text", ORDERS)
def test_backends_visit_the_same_rows(text, backend):
    n = 321
    ours, lent = visits(text, n), visits(text, n, permute=backend.permute)
    for epoch, start, stop in [(0, 0, n), (3, 17, 300), (4, 5, 5)]:
        a, b = ours.indices(epoch, start, stop), lent.indices(epoch, start, stop)
        assert np.array_equal(a, b) and a.dtype == b.dtype


@pytest.mark.parametrize("text", ["shuffle", "sequential", "replacement", "blocks"])
def test_index_dtype_and_memory_for_huge_data(text):
    """A billion rows and more: no array of their number is ever made."""
    for n, dtype in [
        (10**9 + 7, np.int32),
        (2**31 - 1, np.int32),
        (2**31, np.int64),
        (3 * 10**9, np.int64),
    ]:
        tracemalloc.start()
        order = orders.get(text).bind(Facts(n, seed=1))
        for start in (0, n // 2, n - 1000):
            rows = order.indices(2, start, start + 1000)
            assert rows.dtype == dtype and rows.size == 1000
            assert rows.min() >= 0 and rows.max() < n
            if text != "replacement":
                assert np.unique(rows).size == 1000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 60e6, f"{peak:,} bytes for n = {n:,}"


# ---- Frequencies ---------------------------------------------------------------------------


def test_shuffle_is_a_random_permutation():
    """Every row is equally likely at every position."""
    n, epochs = 30, 600
    order = visits("shuffle", n)
    table = np.zeros((n, n))
    for epoch in range(epochs):
        table[np.arange(n), order.indices(epoch, 0, n)] += 1
    expected = epochs / n
    chi_square = ((table - expected) ** 2 / expected).sum()
    degrees = (n - 1) ** 2
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees)


def test_replacement_draws_uniformly_and_independently():
    n, epochs = 50, 2000
    order = visits("replacement", n)
    drawn = np.concatenate([order.indices(epoch, 0, n) for epoch in range(epochs)])
    counts = np.bincount(drawn, minlength=n)
    expected = drawn.size / n
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    # Neighbours are the same row as often as chance has it.
    same = np.count_nonzero(drawn[1:] == drawn[:-1])
    assert abs(same - drawn.size / n) < 5 * np.sqrt(drawn.size / n)


def test_weighted_draws_in_proportion():
    weights = np.array([0.0, 1.0, 0.0, 3.0, 6.0, 1e-9, 0.0])
    order = orders.weighted().bind(Facts(7, weights=weights))
    drawn = np.concatenate([order.indices(epoch, 0, 7) for epoch in range(4000)])
    counts = np.bincount(drawn, minlength=7)
    expected = drawn.size * weights / weights.sum()
    assert (counts[weights == 0] == 0).all()
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected) + 1e-3).all()


def test_weighted_by_weights_that_are_all_equal_is_uniform():
    order = orders.weighted().bind(Facts(20, weights=np.full(20, 0.1, np.float32)))
    counts = np.bincount(np.concatenate([order.indices(e, 0, 20) for e in range(2000)]))
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)


@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=12),
    batch_size=st.integers(1, 100),
    epoch=st.integers(0, 3),
)
def test_stratified_batches_hold_the_proportions(counts, batch_size, epoch):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    n = labels.size
    if len(counts) > max(2, n // 2):
        return
    rows = orders.stratified().bind(Facts(n, labels=labels)).indices(epoch, 0, n)
    shares = np.array(counts) / n
    for start in range(0, n, batch_size):
        batch = labels[rows[start : start + batch_size]]
        found = np.bincount(batch, minlength=len(counts))
        assert (np.abs(found - shares * batch.size) < (1 if len(counts) == 2 else 2)).all()


@pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"], [True, False], [-1.5, 2.5]])
def test_stratified_takes_any_labels(labels):
    y = np.array(labels)[np.arange(100) % 5 // 4]
    rows = orders.stratified().bind(Facts(100, labels=y)).indices(0, 0, 100)
    assert all(np.count_nonzero(y[rows[k : k + 10]] == y[4]) == 2 for k in range(0, 100, 10))


@given(
    counts=st.lists(st.integers(1, 60), min_size=2, max_size=6),
    batch_size=st.integers(1, 60),
)
def test_balanced_batches_hold_equal_counts(counts, batch_size):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    n, k = labels.size, len(counts)
    if k > max(2, n // 2):
        return
    order = orders.stratified(balanced=True).bind(Facts(n, labels=labels))
    assert order.length == n
    rows = order.indices(2, 0, n)
    for start in range(0, n, batch_size):
        batch = labels[rows[start : start + batch_size]]
        found = np.bincount(batch, minlength=k)
        assert (np.abs(found - batch.size / k) < 1).all()


def test_balanced_goes_round_each_class_before_it_comes_again():
    labels = np.repeat([0, 1, 2], [3, 10, 37])
    order = orders.stratified(balanced=True).bind(Facts(50, labels=labels))
    sequence = np.concatenate([order.indices(epoch, 0, 50) for epoch in range(60)])
    for c, count in enumerate([3, 10, 37]):
        mine = sequence[labels[sequence] == c]
        cycles = mine[: mine.size // count * count].reshape(-1, count)
        assert len(cycles) > 20
        assert (np.sort(cycles, axis=1) == np.sort(cycles[0])).all()
        assert len({tuple(cycle) for cycle in cycles.tolist()}) > 1  # shuffled anew


def test_blocks_stay_together():
    n, size, buffer = 1003, 10, 7
    order = orders.blocks(rows=size, buffer=buffer).bind(Facts(n))
    rows = order.indices(3, 0, n)
    block = rows // size
    position = np.empty(n, int)
    position[rows] = np.arange(n)
    spread = [
        np.ptp(position[block_rows]) for block_rows in np.split(np.arange(n), range(10, n, 10))
    ]
    assert max(spread) < size * buffer
    # Each buffer holds whole blocks, mixed.
    first = block[: size * buffer - 7]  # the last block, of 3 rows, may be among them
    assert np.unique(first).size == buffer
    assert np.count_nonzero(np.diff(first)) > 3 * buffer
    firsts = [order.indices(epoch, 0, 60) // size for epoch in range(20)]
    assert np.unique(np.concatenate(firsts)).size > 50  # other blocks come first each epoch


def test_blocks_of_one_buffer_are_a_shuffle():
    rows = orders.blocks(rows=10, buffer=1000).bind(Facts(1000)).indices(0, 0, 1000)
    assert abs(np.corrcoef(np.arange(1000), rows)[0, 1]) < 0.15


@pytest.mark.parametrize("text", PERMUTING)
def test_orders_that_visit_each_row_once_have_no_frequency(text):
    assert orders.get(text).frequency(facts(40)) is None


@pytest.mark.parametrize("text", [text for text in ORDERS if text not in PERMUTING])
def test_frequency_is_what_the_order_does(text):
    known, n, epochs = facts(40), 40, 600
    order = orders.get(text).bind(known)
    counts = np.bincount(
        np.concatenate([order.indices(epoch, 0, n) for epoch in range(epochs)]), minlength=n
    )
    said = orders.get(text).frequency(known)
    expected = epochs * (np.ones(n) if said is None else said)
    assert (np.abs(counts - expected) <= 5 * np.sqrt(expected) + 2).all()


# ---- Bad arguments -------------------------------------------------------------------------

BAD = [
    (lambda: orders.get("shufle"), InvalidArgument, "order='shufle'.*mean 'shuffle'"),
    (lambda: orders.get(3), InvalidType, "order=3: expected a name"),
    (lambda: orders.get(None), InvalidType, "order=None: expected a name"),
    (lambda: orders.get("shuffle("), InvalidArgument, "order='shuffle\\('"),
    (lambda: orders.get("shuffle(3)"), InvalidArgument, "order: shuffle.*too many"),
    (lambda: orders.get("log_loss"), InvalidArgument, "order='log_loss' is not known"),
    (lambda: orders.blocks(rows=0), InvalidArgument, "blocks.*rows=0.*>= 1"),
    (lambda: orders.blocks(buffer=0), InvalidArgument, "blocks.*buffer=0.*>= 1"),
    (lambda: orders.blocks(rows=2.5), InvalidType, r"blocks.*rows=2\.5.*integer"),
    (lambda: orders.stratified(balanced="yes"), InvalidType, "balanced='yes': expected True"),
    (lambda: orders.weighted().bind(Facts(3)), InvalidArgument, "'weighted' needs weights"),
    (
        lambda: orders.weighted().bind(Facts(3, weights=np.zeros(3))),
        DataError,
        "'weighted': the weights of all training rows are zero",
    ),
    (lambda: orders.stratified().bind(Facts(3)), InvalidArgument, "'stratified' needs class"),
    (
        lambda: orders.stratified().bind(Facts(9, labels=np.arange(9.0))),
        InvalidArgument,
        "'stratified': y has 9 distinct values in 9 rows",
    ),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_bad_orders_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ---- Through fit: which row is visited when ------------------------------------------------


def visited(n: int, backend: str = "auto", **arguments) -> np.ndarray:
    """Number of the step at which each row of a one-epoch fit was visited, -1 for never.

    Row i is the i-th unit vector and every slope is -1, so that step t adds its learning rate,
    t + 1, to the coefficients of its rows alone.
    """
    result = schuss.fit(
        np.eye(n),
        np.full(n, 1e9),
        loss="epsilon_insensitive(epsilon=0)",
        fit_intercept=False,
        epochs=1,
        batch_size=1,
        learning_rate=lambda step: step + 1.0,
        backend=backend,
        **arguments,
    )
    return result.coef.astype(int) - 1


@pytest.mark.parametrize("text", ["shuffle", "sequential", "blocks(rows=4, buffer=3)"])
def test_fit_visits_the_rows_of_the_order(text, backend):
    n = 57
    steps = visited(n, backend, order=text, seed=3)
    rows = orders.get(text).bind(Facts(n, seed=3)).indices(0, 0, n)
    assert np.array_equal(np.argsort(steps), rows)


def test_fit_keeps_to_the_training_rows(backend):
    n = 60
    held = visited(n, backend, order="sequential", validation=0.3, seed=4) < 0
    assert np.count_nonzero(held) == 18
    for text in ("shuffle", "sequential", "blocks(rows=4, buffer=3)"):
        steps = visited(n, backend, order=text, validation=0.3, seed=4)
        assert np.array_equal(steps < 0, held)
        assert np.array_equal(np.sort(steps[~held]), np.arange(42))
    assert not np.array_equal(visited(n, backend, order="sequential", validation=0.3) < 0, held)
    train = np.flatnonzero(~held)  # in ascending order, and the order's rows are their numbers
    rows = orders.get("shuffle").bind(Facts(42, seed=4)).indices(0, 0, 42)
    steps = visited(n, backend, order="shuffle", validation=0.3, seed=4)
    assert np.array_equal(train[rows], np.argsort(np.where(held, n, steps))[:42])


@pytest.mark.parametrize("text", ["replacement", "weighted"])
def test_drawing_orders_keep_to_the_training_rows(text, backend):
    n, weight = 60, np.ones(60)
    held = visited(n, backend, order="sequential", validation=0.5, seed=4) < 0
    for epochs in (1, 3):
        result = schuss.fit(
            np.eye(n),
            np.full(n, 1e9),
            loss="epsilon_insensitive(epsilon=0)",
            fit_intercept=False,
            epochs=epochs,
            batch_size=1,
            learning_rate=1.0,
            order=text,
            sample_weight=weight,
            validation=0.5,
            seed=4,
            backend=backend,
        )
        assert result.coef.sum() == 30 * epochs and not result.coef[held].any()


def test_weights_that_are_zero_on_all_training_rows():
    n = 60
    held = visited(n, order="sequential", validation=0.3, seed=4) < 0
    with pytest.raises(DataError, match="held out"):
        schuss.fit(
            np.eye(n), np.ones(n), order="weighted", sample_weight=held, validation=0.3, seed=4
        )


def test_drop_last_leaves_rows_out(backend):
    steps = visited(10, backend, order="shuffle", drop_last=True)
    assert np.array_equal(np.sort(steps), np.arange(10))  # batches of one are never short
    result = schuss.fit(
        np.eye(10),
        np.full(10, 1e9),
        loss="epsilon_insensitive(epsilon=0)",
        fit_intercept=False,
        epochs=1,
        batch_size=4,
        learning_rate=4.0,
        drop_last=True,
        backend=backend,
    )
    rows = orders.shuffle().bind(Facts(10)).indices(0, 0, 8)
    assert np.array_equal(np.flatnonzero(result.coef), np.sort(rows))


def test_sequential_order_on_sorted_labels_warns():
    X = np.random.default_rng(0).normal(size=(40, 2))
    y = np.repeat([0, 1], 20)
    with pytest.warns(SchussWarning, match="order='sequential' on data sorted by y") as caught:
        schuss.fit(X, y, loss="log_loss", order="sequential", epochs=1)
    assert caught[0].filename == __file__
    with pytest.warns(SchussWarning, match="sorted by y"):
        schuss.fit(X, -np.arange(40.0), order="sequential", epochs=1)
    schuss.fit(X, np.arange(40) % 2, loss="log_loss", order="sequential", epochs=1)
    schuss.fit(X, np.ones(40), order="sequential", epochs=1)
    schuss.fit(X, y, loss="log_loss", order="shuffle", epochs=1)


class Backwards(orders.Order):
    """An order of the user's own, right or wrong."""

    def __init__(self, wrong=None) -> None:
        object.__setattr__(self, "wrong", wrong)

    def bind(self, known: Facts) -> orders.Visits:
        def indices(epoch: int, start: int, stop: int) -> np.ndarray:
            rows = known.n - 1 - np.arange(start, stop)
            return rows if self.wrong is None else self.wrong(rows)

        return orders.Visits(known.n, indices)


def test_an_order_of_the_users_own(backend):
    assert visited(9, backend, order=Backwards()).tolist() == list(range(8, -1, -1))
    assert [b.tolist() for b in schuss.batches(np.arange(5), batch_size=3, order=Backwards())] == [
        [4, 3, 2],
        [1, 0],
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda rows: rows + 1, r"order=.*rows\[0\] is 9: expected 0 \.\.\. 8"),
        (lambda rows: rows - 100, r"order=.*rows\[0\] is -92: expected 0"),
        (lambda rows: rows[1:], r"order=.*returned 8 rows for positions 0"),
        (lambda rows: rows * 0.5, "order=.*rows: expected .*integers"),
        (lambda rows: None, "order=.*rows: expected .*integers"),
    ],
)
def test_a_wrong_order_of_the_users_own_is_refused(wrong, message, backend):
    """Before a kernel reads where no data are."""
    with pytest.raises(InvalidArgument, match=message):
        visited(9, backend, order=Backwards(wrong))


# ---- Through batches -----------------------------------------------------------------------


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 32, "full"])
@pytest.mark.parametrize("text", ORDERS)
def test_batches_are_the_rows_of_the_order(text, batch_size, drop_last):
    known = facts(50, seed=5)
    X, y = np.arange(100.0).reshape(50, 2), known.labels
    size = 50 if batch_size == "full" else batch_size
    expected = orders.get(text).bind(known).indices(2, 0, 50)
    pieces = [expected[k : k + size] for k in range(0, 50, size)]
    if drop_last:
        pieces = [piece for piece in pieces if piece.size == size]
    found = list(
        schuss.batches(
            X,
            y,
            batch_size=batch_size,
            order=text,
            seed=5,
            epoch=2,
            drop_last=drop_last,
            sample_weight=known.weights,
        )
    )
    assert len(found) == len(pieces)
    for (Xb, yb), rows in zip(found, pieces, strict=True):
        assert np.array_equal(Xb, X[rows]) and np.array_equal(yb, y[rows])
        assert not np.shares_memory(Xb, X)


def test_batches_of_anything_with_rows():
    images = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
    found = list(schuss.batches(images, batch_size=4, order="sequential"))
    assert [b.shape for b in found] == [(4, 2, 2), (2, 2, 2)]
    assert found[0].dtype == np.uint8
    texts = np.array(["a", "bb", "ccc"])
    assert sorted(np.concatenate(list(schuss.batches(texts, batch_size=2)))) == ["a", "bb", "ccc"]
    Xb, yb = next(schuss.batches([[1.0], [2.0]], [["x", "y"], ["z", "w"]]))
    assert Xb.shape == (2, 1) and yb.shape == (2, 2)  # the default batch shrinks to the data
