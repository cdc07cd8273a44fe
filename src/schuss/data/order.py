"""Orders: which row is visited when, as a pure function of (seed, epoch, position).

Nothing is drawn in sequence, so any epoch can be resumed in its middle and any worker can compute
its own share. An :class:`Order` is a description; :meth:`Order.bind` joins it with the data's
facts and gives a :class:`Visits`, which computes indices. The same rows come on every backend.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import lru_cache
from typing import ClassVar, TypeVar, dataclass_transform

import numpy as np

from schuss.errors import DataError, InvalidArgument
from schuss.formulas import bijection
from schuss.formulas.bijection import draw, index_dtype, round_keys
from schuss.formulas.spec import Spec, Table, parameter

__all__ = [
    "Facts",
    "Order",
    "Visits",
    "blocks",
    "get",
    "names",
    "replacement",
    "sequential",
    "shuffle",
    "stratified",
    "weighted",
]

# Rows of a buffer up to which the buffers of an epoch share one permutation, kept in memory.
SHARED_PATTERN = 1 << 20
# Longer blocks are read no faster.
BLOCK_BYTES = 1 << 14
# Rows of a block where nothing is known of their size.
BLOCK_ROWS = 4096

Permute = Callable[[int, np.ndarray, int, int], np.ndarray]
Mix = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, int], np.ndarray]
Indices = Callable[[int, int, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What an order may know of the data.

    Attributes
    ----------
    n : int
        Number of rows.
    batch_size : int
    seed : int
    labels : ndarray of shape (n,), or None
        Class labels or targets.
    weights : ndarray of shape (n,), or None
        Weight of each row.
    permute, mix : callable
        The index bijection and the mixing of blocks, compiled where a backend lends them.
    row_bytes : int or None
        Bytes of a row in memory, where known.

    Examples
    --------
    >>> import schuss
    >>> facts = schuss.orders.Facts(n=6, seed=1)
    >>> visits = schuss.orders.shuffle().bind(facts)
    >>> len(set(visits.indices(3, 0, 6)))
    6
    """

    n: int
    batch_size: int = 1
    seed: int = 0
    labels: np.ndarray | None = None
    weights: np.ndarray | None = None
    permute: Permute = bijection.permute
    mix: Mix = bijection.mix
    row_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Visits:
    """An order joined with the data's facts.

    Attributes
    ----------
    length : int
        Positions of an epoch.
    indices : callable
        ``indices(epoch, start, stop)``: rows at positions start <= p < stop, int32 while the
        number of rows is below 2**31.

    Examples
    --------
    Any piece of any epoch can be asked for by itself.

    >>> import schuss
    >>> visits = schuss.orders.shuffle().bind(schuss.orders.Facts(n=100))
    >>> whole = visits.indices(7, 0, 100)
    >>> (visits.indices(7, 40, 60) == whole[40:60]).all()
    np.True_
    """

    length: int
    indices: Indices


@dataclasses.dataclass(frozen=True, repr=False)
class Order(Spec):
    """Base of all orders: a description of which row is visited when.

    Examples
    --------
    >>> import schuss
    >>> schuss.orders.get("stratified(balanced=True)").balanced
    True
    """

    family: ClassVar[str] = "orders"

    def bind(self, facts: Facts) -> Visits:
        """Join the order with the data's facts.

        Parameters
        ----------
        facts : Facts
            Number of rows, batch size, seed, labels and weights.

        Returns
        -------
        Visits
        """
        raise NotImplementedError

    def frequency(self, facts: Facts) -> np.ndarray | None:
        """How often each row comes per epoch on average, shape (n,); None: all equally often.

        Parameters
        ----------
        facts : Facts
        """
        del facts
        return None


ORDERS: Table[Order] = Table("order", Order)


R = TypeVar("R", bound=Order)


@dataclass_transform(frozen_default=True, field_specifiers=(parameter, dataclasses.field))
def row(cls: type[R]) -> type[R]:
    """Make a class a row of the table of orders."""
    return ORDERS.add(dataclasses.dataclass(frozen=True, repr=False)(cls))


@row
class shuffle(Order):
    """A fresh permutation of all rows each epoch, in constant memory.

    Examples
    --------
    >>> import schuss
    >>> visits = schuss.orders.shuffle().bind(schuss.orders.Facts(n=6, seed=1))
    >>> sorted(visits.indices(0, 0, 6).tolist())
    [0, 1, 2, 3, 4, 5]
    """

    def bind(self, facts: Facts) -> Visits:
        def indices(epoch: int, start: int, stop: int) -> np.ndarray:
            return facts.permute(facts.n, round_keys(facts.seed, epoch), start, stop)

        return Visits(facts.n, indices)


@row
class sequential(Order):
    """Rows as they are stored, every epoch.

    Examples
    --------
    >>> import schuss
    >>> schuss.orders.sequential().bind(schuss.orders.Facts(n=6)).indices(0, 2, 5)
    array([2, 3, 4], dtype=int32)
    """

    def bind(self, facts: Facts) -> Visits:
        def indices(epoch: int, start: int, stop: int) -> np.ndarray:
            return np.arange(start, stop, dtype=index_dtype(facts.n))

        return Visits(facts.n, indices)


@row
class replacement(Order):
    """Rows drawn independently and uniformly, as many per epoch as there are.

    Examples
    --------
    >>> import schuss
    >>> schuss.orders.replacement().bind(schuss.orders.Facts(n=6)).indices(0, 0, 6).size
    6
    """

    def bind(self, facts: Facts) -> Visits:
        def indices(epoch: int, start: int, stop: int) -> np.ndarray:
            uniform = draw(round_keys(facts.seed, epoch), start, stop)
            # The product can round up to n where n is close to 2**53.
            rows = np.minimum(uniform * facts.n, facts.n - 1)
            return rows.astype(index_dtype(facts.n))

        return Visits(facts.n, indices)


@row
class weighted(Order):
    """Rows drawn with replacement, in proportion to their weight.

    Training with it minimises the same weighted loss: every visit then counts alike, with the
    mean weight.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> facts = schuss.orders.Facts(n=3, weights=np.array([0.0, 1.0, 0.0]))
    >>> schuss.orders.weighted().bind(facts).indices(0, 0, 4)
    array([1, 1, 1, 1], dtype=int32)
    """

    def bind(self, facts: Facts) -> Visits:
        if facts.weights is None:
            raise InvalidArgument(
                "order='weighted' needs weights: give sample_weight or class_weight."
            )
        if not facts.weights.any():
            raise DataError("order='weighted': the weights of all training rows are zero.")
        upper = np.cumsum(facts.weights, dtype=np.float64)
        last = int(np.flatnonzero(facts.weights)[-1])

        def indices(epoch: int, start: int, stop: int) -> np.ndarray:
            uniform = draw(round_keys(facts.seed, epoch), start, stop)
            rows = np.searchsorted(upper, uniform * upper[-1], side="right")
            return np.minimum(rows, last).astype(index_dtype(facts.n))

        return Visits(facts.n, indices)

    def frequency(self, facts: Facts) -> np.ndarray | None:
        """Weight of each row, relative to the mean."""
        assert facts.weights is not None
        mean = facts.weights.mean(dtype=np.float64)
        return np.asarray(facts.weights / mean, dtype=np.float64)


@row
class stratified(Order):
    """Every batch holds the classes in the data's proportions.

    Of two classes, a batch has the number that the proportions give, rounded up or down; of more
    classes, that number to within two rows.

    Parameters
    ----------
    balanced : bool, default=False
        Equal counts of every class in each batch instead: rows of rare classes come again within
        an epoch, rows of frequent ones take several epochs to come round.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> facts = schuss.orders.Facts(n=6, labels=np.array([0, 0, 0, 0, 1, 1]))
    >>> visits = schuss.orders.stratified().bind(facts)
    >>> sorted(facts.labels[visits.indices(0, 0, 3)].tolist())
    [0, 0, 1]
    """

    balanced: bool = False

    def bind(self, facts: Facts) -> Visits:
        if facts.labels is None:
            raise InvalidArgument("order='stratified' needs class labels.")
        classes, member = np.unique(facts.labels, return_inverse=True)
        if classes.size > max(2, facts.n // 2):
            raise InvalidArgument(
                f"order='stratified': y has {classes.size} distinct values in {facts.n} rows; "
                "it needs class labels, not a continuous target."
            )
        dtype = index_dtype(facts.n)
        counts = np.bincount(member)
        by_class = np.argsort(member, kind="stable").astype(dtype)
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])

        def lookup(c: int, cycle: int, places: np.ndarray) -> np.ndarray:
            """Rows of class c at the given places of its own shuffled sequence."""
            keys = round_keys(facts.seed, cycle, c)
            low, high = int(places[0]), int(places[-1]) + 1
            image = facts.permute(int(counts[c]), keys, low, high)[places - low]
            rows: np.ndarray = by_class[first[c] + image]
            return rows

        return (
            _balanced(facts, counts, lookup)
            if self.balanced
            else _in_proportion(facts, counts, first, by_class, lookup)
        )

    def frequency(self, facts: Facts) -> np.ndarray | None:
        """With ``balanced``, rows of rare classes come more often."""
        if not self.balanced:
            return None
        assert facts.labels is not None
        _, member, counts = np.unique(facts.labels, return_inverse=True, return_counts=True)
        return np.asarray(facts.n / (counts.size * counts))[member]


Lookup = Callable[[int, int, np.ndarray], np.ndarray]


def _in_proportion(
    facts: Facts,
    counts: np.ndarray,
    first: np.ndarray,
    by_class: np.ndarray,
    lookup: Lookup,
) -> Visits:
    dtype = by_class.dtype
    class_at = _spread(counts, np.arange(counts.size, dtype=dtype))
    rank_at = np.empty_like(class_at)
    rank_at[np.argsort(class_at, kind="stable")] = np.arange(facts.n) - np.repeat(first, counts)

    def indices(epoch: int, start: int, stop: int) -> np.ndarray:
        rows = np.empty(stop - start, dtype=dtype)
        here, ranks = class_at[start:stop], rank_at[start:stop]
        for c in np.unique(here):
            chosen = here == c
            rows[chosen] = lookup(int(c), epoch, ranks[chosen])
        return rows

    return Visits(facts.n, indices)


def _spread(counts: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """A sequence of classes in which each comes ``counts`` times, spread evenly.

    Two halves of the classes are merged so that any stretch holds either in proportion, rounded up
    or down; each half is spread in the same way.
    """
    if classes.size == 1:
        return np.full(int(counts[0]), classes[0])
    order = np.argsort(-counts, kind="stable")
    counts, classes = counts[order], classes[order]
    total = np.cumsum(counts)
    n = int(total[-1])
    cut = int(np.argmin(np.abs(2 * total[:-1] - n))) + 1
    halves = [(counts[:cut], classes[:cut]), (counts[cut:], classes[cut:])]
    fewer, more = sorted(halves, key=lambda half: int(half[0].sum()))
    k, m = np.arange(fewer[0].sum()), int(fewer[0].sum())
    here = np.zeros(n, dtype=bool)
    here[(2 * k + 1) * n // (2 * m)] = True
    sequence = np.empty(n, dtype=classes.dtype)
    sequence[here], sequence[~here] = _spread(*fewer), _spread(*more)
    return sequence


def _balanced(facts: Facts, counts: np.ndarray, lookup: Lookup) -> Visits:
    k = counts.size

    def indices(epoch: int, start: int, stop: int) -> np.ndarray:
        rows = np.empty(stop - start, dtype=index_dtype(facts.n))
        position = np.arange(start, stop)
        for c in range(k):
            chosen = np.flatnonzero(position % k == c)
            per_epoch = -(-(facts.n - c) // k)  # positions of an epoch that class c has
            place = epoch * per_epoch + position[chosen] // k
            cycle = place // counts[c]
            for number in np.unique(cycle):
                here = cycle == number
                rows[chosen[here]] = lookup(c, int(number), place[here] % counts[c])
        return rows

    return Visits(facts.n, indices)


@row
class blocks(Order):
    """Blocks of rows in shuffled order, and rows shuffled within a buffer of blocks.

    Reads memory or disk nearly in order. The rows of a block stay within ``rows * buffer``
    positions of each other. The buffers of an epoch share one permutation, which each begins at a
    random place of its own.

    Parameters
    ----------
    rows : int or None, default=None
        Rows of a block, >= 1. By default as many as fill 16 KiB, so that a buffer stays in the
        cache; 4096 where the size of a row is not known.
    buffer : int, default=16
        Blocks that are mixed with each other, >= 1.

    Examples
    --------
    >>> import schuss
    >>> facts = schuss.orders.Facts(n=10)
    >>> visits = schuss.orders.blocks(rows=2, buffer=2).bind(facts)
    >>> sorted(visits.indices(0, 0, 10).tolist()) == list(range(10))
    True
    """

    rows: int | None = parameter(default=None, at_least=1)
    buffer: int = parameter(default=16, at_least=1)

    def bind(self, facts: Facts) -> Visits:
        layout = _Layout(facts, self.rows or _block_rows(facts.row_bytes), self.buffer)
        return Visits(facts.n, layout.indices)


def _block_rows(row_bytes: int | None) -> int:
    return BLOCK_ROWS if row_bytes is None else max(1, BLOCK_BYTES // max(1, row_bytes))


class _Layout:
    """Where the rows of each epoch's blocks and buffers lie.

    Buffers of the same number of rows share the epoch's pattern. Those that hold the last, shorter
    block, or are the last and lack blocks, have a permutation of their own.
    """

    def __init__(self, facts: Facts, rows: int, buffer: int) -> None:
        self.facts = facts
        self.size = min(rows, facts.n)
        self.n_blocks = -(-facts.n // self.size)
        self.missing = self.n_blocks * self.size - facts.n  # rows that the last block lacks
        self.mixed = min(buffer, self.n_blocks)
        self.whole = self.size * self.mixed
        self.dtype = np.dtype(index_dtype(facts.n))
        self.epoch = lru_cache(maxsize=2)(self._epoch)

    def _twice(self, pattern: np.ndarray) -> np.ndarray:
        return np.concatenate([pattern, pattern]).astype(self.dtype)

    def _epoch(self, epoch: int) -> _Epoch:
        facts, mixed, whole = self.facts, self.mixed, self.whole
        order = facts.permute(self.n_blocks, round_keys(facts.seed, epoch), 0, self.n_blocks)
        n_buffers = -(-self.n_blocks // mixed)
        edges, odd = np.arange(n_buffers + 1) * whole, set()
        if self.missing:
            short = int(np.argmax(order == self.n_blocks - 1)) // mixed
            edges[short + 1 :] -= self.missing
            odd.add(short)
        if self.n_blocks % mixed:
            edges[-1] = facts.n
            odd.add(n_buffers - 1)
        starts = np.zeros((n_buffers, mixed), self.dtype)
        starts.ravel()[: self.n_blocks] = order * self.dtype.type(self.size)
        shared = whole if whole <= SHARED_PATTERN else 0
        places = facts.permute(whole, round_keys(facts.seed, epoch, 1), 0, shared)
        block, row = np.divmod(places, self.size)
        turned = (draw(round_keys(facts.seed, epoch, 2), 0, n_buffers) * whole).astype(np.int64)
        pattern = self._twice(block), self._twice(row)
        own = sorted(odd) if shared else list(range(n_buffers))
        return _Epoch(order, edges, own, starts, pattern, turned)

    def indices(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """Rows at positions start <= p < stop."""
        now = self.epoch(epoch)
        # Runs of buffers that share the pattern, and between them those that do not.
        first, last = (int(k) for k in np.searchsorted(now.edges, [start, stop - 1], side="right"))
        pieces, number = [], first - 1
        while number < last:
            odd = next((k for k in now.odd if k >= number), last)
            end = min(max(odd, number + 1), last)
            begin = int(now.edges[number])
            low, high = max(start - begin, 0), min(stop, int(now.edges[end])) - begin
            if odd == number:
                pieces.append(self._own(now, epoch, number, low, high))
            else:
                here = slice(number, end)
                pieces.append(
                    self.facts.mix(*now.pattern, now.starts[here], now.turned[here], low, high)
                )
            number = end
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, self.dtype)

    def _own(self, now: _Epoch, epoch: int, number: int, start: int, stop: int) -> np.ndarray:
        """Rows of a buffer that has a permutation of its own."""
        blocks = now.order[number * self.mixed : (number + 1) * self.mixed].astype(np.int64)
        begins = np.arange(blocks.size + 1) * self.size
        begins[1:] -= self.missing * np.cumsum(blocks == self.n_blocks - 1)
        keys = round_keys(self.facts.seed, epoch, number)
        places = self.facts.permute(int(begins[-1]), keys, start, stop)
        block = np.searchsorted(begins, places, side="right") - 1
        return np.asarray(blocks[block] * self.size + (places - begins[block]), self.dtype)


@dataclasses.dataclass(frozen=True)
class _Epoch:
    """One epoch's blocks as they come, and the buffers that they fill."""

    order: np.ndarray  # (n_blocks,): number of the block that comes when
    edges: np.ndarray  # (n_buffers + 1,): position at which each buffer begins
    odd: list[int]  # buffers that do not share the pattern, ascending
    starts: np.ndarray  # (n_buffers, blocks): first row of each block
    pattern: tuple[np.ndarray, np.ndarray]
    turned: np.ndarray  # (n_buffers,): where in the pattern each buffer begins


get = ORDERS.get
names = ORDERS.names
