"""A permutation of [0, n) that needs no memory: a keyed Feistel network with cycle walking.

``permute(i)`` encrypts i within the smallest power-of-two domain of at least 2**8 points that
holds n, again and again until the result lies below n. Any number of keyed rounds is a
bijection; six make pair and run statistics those of random permutations. The same function
stands in ``csrc/formulas.h``, and gives the same indices bit for bit.

References
----------
M. Luby, C. Rackoff, How to Construct Pseudorandom Permutations from Pseudorandom Functions, SIAM
J. Comput. 17 (1988). J. Black, P. Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002
(cycle walking).
"""

from __future__ import annotations

import numpy as np

__all__ = ["ROUNDS", "draw", "index_dtype", "mix", "permute", "round_keys", "split", "splitmix64"]

ROUNDS = 6
_SMALLEST_DOMAIN_BITS = 8
_GOLDEN = 0x9E3779B97F4A7C15
_MASK64 = 0xFFFFFFFFFFFFFFFF


def splitmix64(x: int) -> int:
    """Mix a 64-bit integer (Steele, Lea, Flood 2014; the finaliser of SplitMix64)."""
    x = (x + _GOLDEN) & _MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK64
    return x ^ (x >> 31)


def round_keys(seed: int, *stream: int) -> np.ndarray:
    """Keys of the rounds for one seed and stream (epoch, class, ...), uint32, shape (ROUNDS,)."""
    state = splitmix64(seed & _MASK64)
    for number in stream:
        state = splitmix64(state ^ (number & _MASK64))
    keys = np.empty(ROUNDS, dtype=np.uint32)
    for i in range(ROUNDS):
        state = splitmix64(state)
        keys[i] = state >> 32
    return keys


def split(n: int) -> tuple[int, int]:
    """Widths in bits of the left and right half of the domain that holds [0, n)."""
    bits = max(_SMALLEST_DOMAIN_BITS, max(n - 1, 1).bit_length())
    return bits // 2, bits - bits // 2


def index_dtype(n: int) -> type[np.signedinteger]:
    """Smallest of int32 and int64 that indexes ``n`` rows."""
    return np.int32 if n < 2**31 else np.int64


def _encrypt(x: np.ndarray, keys: np.ndarray, left_bits: int, right_bits: int) -> np.ndarray:
    """One pass through the network; ``x`` is uint64 below 2**(left_bits + right_bits)."""
    left = (x >> np.uint64(right_bits)).astype(np.uint32)
    right = x.astype(np.uint32) & np.uint32((1 << right_bits) - 1)
    a, b = left_bits, right_bits
    for key in keys:
        mixed = (right ^ key) * np.uint32(0x9E3779B1)
        mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x85EBCA77)
        left, right = right, left ^ (mixed >> np.uint32(32 - a))
        a, b = b, a
    return (left.astype(np.uint64) << np.uint64(right_bits)) | right


def permute(n: int, keys: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Images of ``start <= i < stop`` under the permutation of [0, n) that ``keys`` name.

    Parameters
    ----------
    n : int
        Size of the domain; 1 <= n < 2**63.
    keys : ndarray of uint32, shape (ROUNDS,)
        From :func:`round_keys`.
    start, stop : int
        Range of positions; 0 <= start <= stop <= n.

    Returns
    -------
    ndarray of int32 (int64 from n = 2**31), shape (stop - start,)

    Examples
    --------
    >>> sorted(permute(5, round_keys(0, 0), 0, 5).tolist())
    [0, 1, 2, 3, 4]
    """
    left_bits, right_bits = split(n)
    x = np.arange(start, stop, dtype=np.uint64)
    walking = np.arange(x.size)
    while walking.size:
        x[walking] = _encrypt(x[walking], keys, left_bits, right_bits)
        walking = walking[x[walking] >= n]
    return x.astype(index_dtype(n))


def mix(
    block: np.ndarray,
    row: np.ndarray,
    starts: np.ndarray,
    turned: np.ndarray,
    start: int,
    stop: int,
) -> np.ndarray:
    """Rows of buffers, each of as many blocks, that are mixed by one pattern.

    Position p of buffer b is row ``row[p + turned[b]]`` of the buffer's block number
    ``block[p + turned[b]]``.

    Parameters
    ----------
    block, row : ndarray of starts' dtype, shape (2 * size,)
        The pattern, twice in a row.
    starts : ndarray of int32 or int64, shape (n_buffers, n_blocks)
        First row of each block.
    turned : ndarray of int64, shape (n_buffers,)
        Where in the pattern each buffer begins; 0 <= turned <= size.
    start, stop : int
        Range of positions; 0 <= start <= stop <= n_buffers * size.

    Returns
    -------
    ndarray of starts' dtype, shape (stop - start,)

    Examples
    --------
    >>> block, row = np.array([[0, 1, 1, 0], [1, 0, 1, 0]], np.int32)
    >>> starts = np.array([[4, 0], [6, 2]], np.int32)
    >>> mix(np.tile(block, 2), np.tile(row, 2), starts, np.array([0, 2]), 0, 8)
    array([5, 0, 1, 4, 3, 6, 7, 2], dtype=int32)
    """
    size = block.size // 2
    pieces = [np.empty(0, starts.dtype)]
    for b in range(start // size, -(-stop // size)):
        low, high = max(start - b * size, 0), min(stop - b * size, size)
        here = slice(turned[b] + low, turned[b] + high)
        pieces.append(starts[b][block[here]] + row[here])
    return np.concatenate(pieces)


def draw(keys: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Independent uniform numbers in [0, 1) at positions ``start <= i < stop``, float64.

    A counter-based generator: the value at a position depends on the keys and the position alone.
    """
    key = (int(keys[0]) << 32) | int(keys[1])
    with np.errstate(over="ignore"):
        x = np.arange(start, stop, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(key)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53
