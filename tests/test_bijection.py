"""The index bijection: a permutation, the same on every backend, with a random one's statistics."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schuss.formulas import bijection
from schuss.formulas.bijection import ROUNDS, draw, index_dtype, permute, round_keys, split

LARGE = [2**20 + 7, 2**31 - 1, 2**31 + 11, 2**40, 2**63 - 1]
Permutation = Callable[[int, np.ndarray], np.ndarray]

# --------------------------------------------------------------------------------- a permutation


def test_permutation_of_every_small_size(backend):
    for n in range(1, 2001):
        image = backend.permute(n, round_keys(1, n), 0, n)
        assert image.dtype == np.int32
        np.testing.assert_array_equal(np.sort(image), np.arange(n), err_msg=str(n))


@pytest.mark.parametrize("n", LARGE)
def test_windows_of_a_large_permutation(backend, n):
    keys, width = round_keys(3, 4), 50_000
    starts = sorted({0, n // 3, n - width})
    image = np.concatenate([backend.permute(n, keys, start, start + width) for start in starts])
    assert image.dtype == index_dtype(n)
    assert image.min() >= 0
    assert image.max() < n
    assert np.unique(image).size == image.size


def test_whole_of_a_million(backend):
    n = 2**20 + 7
    seen = np.zeros(n, bool)
    seen[backend.permute(n, round_keys(5), 0, n)] = True
    assert seen.all()


@given(
    n=st.integers(1, 2**63 - 1),
    seed=st.integers(0, 2**64 - 1),
    place=st.floats(0, 1),
    width=st.integers(0, 50),
)
def test_any_window_lies_below_n_without_repeats(n, seed, place, width):
    start = min(int(place * n), n)
    stop = min(start + width, n)
    image = permute(n, round_keys(seed), start, stop)
    assert image.size == stop - start
    assert all(0 <= x < n for x in image.tolist())
    assert len(set(image.tolist())) == image.size


def test_slices_are_parts_of_the_whole(backend):
    keys = round_keys(9, 1)
    whole = backend.permute(1000, keys, 0, 1000)
    for start, stop in ((0, 0), (0, 1), (17, 400), (999, 1000), (1000, 1000)):
        np.testing.assert_array_equal(backend.permute(1000, keys, start, stop), whole[start:stop])


def test_domain_holds_n_in_two_halves():
    for n in [1, 2, 255, 256, 257, 2**16, 2**16 + 1, *LARGE]:
        left, right = split(n)
        assert 0 <= right - left <= 1
        assert n <= 2 ** (left + right)
        assert left + right == 8 or n > 2 ** (left + right - 1)


def test_index_dtype_is_the_smallest_that_holds_the_rows():
    assert index_dtype(2**31 - 1) is np.int32
    assert index_dtype(2**31) is np.int64


# ---------------------------------------------------------------------- the same on every backend


@pytest.mark.parametrize("out", [np.int32, np.int64])
def test_compiled_writings_have_the_same_bits(compiled, out):
    rng = np.random.default_rng(0)
    sizes = [*range(1, 300), *rng.integers(300, 2**31 - 1, 100).tolist(), 2**31 - 1]
    if out is np.int64:
        sizes += [*LARGE, *rng.integers(2**31, 2**63 - 1, 100).tolist()]
    for n in sizes:
        keys = round_keys(n, 7)
        start = int(rng.integers(0, n))
        stop = min(n, start + 50)
        image = np.empty(stop - start, out)
        compiled.kernels.permute(n, keys, start, image, 1)
        np.testing.assert_array_equal(image, permute(n, keys, start, stop), err_msg=str(n))


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512", "neon"])
def test_native_instruction_sets_have_the_same_bits(native, instruction_set, name):
    instruction_set(name)
    for n in (1000, 2**20 + 7, 2**31 - 1, 2**33 + 1, 2**40):
        keys, stop = round_keys(n), min(n, 3001)
        np.testing.assert_array_equal(native.permute(n, keys, 0, stop), permute(n, keys, 0, stop))


def test_the_permutation_is_what_it_was():
    """Orders are part of what a seed stands for: a change here changes everybody's results."""
    keys = round_keys(0, 0)
    assert permute(10, keys, 0, 10).tolist() == [7, 9, 4, 0, 6, 8, 5, 1, 2, 3]
    assert permute(2**40, keys, 0, 3).tolist() == [171331001234, 578671668855, 1025566086231]


@pytest.mark.threads
@pytest.mark.parametrize("n", [100_003, 2**33])
def test_threads_share_the_places(native, n):
    keys, start, size = round_keys(7, 1), 1234, 70_001
    dtype = index_dtype(n)
    whole = permute(n, keys, start, start + size)
    for threads in (1, 2, 3):
        out = np.empty(size, dtype)
        native.kernels.permute(n, keys, start, out, threads)
        np.testing.assert_array_equal(out, whole)


@pytest.mark.parametrize("n", [100_003, 2**33])
def test_a_pattern_laid_over_buffers(compiled, n):
    dtype, start, size = index_dtype(n), 1234, 70_001
    pattern = np.tile(np.arange(5), 2).astype(dtype), np.zeros(10, dtype)
    starts = np.arange(5 * 20_000, dtype=dtype).reshape(-1, 5)
    turned = np.arange(20_000) % 5
    mixed = bijection.mix(*pattern, starts, turned, start, start + size)
    found = compiled.mix(*pattern, starts, turned, start, start + size)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, mixed)


def test_native_refuses_places_beyond_n(native):
    for n, start, size in ((10, 0, 11), (10, 10, 1), (10, -1, 2), (0, 0, 0)):
        with pytest.raises(IndexError, match="beyond n"):
            native.kernels.permute(n, round_keys(0), start, np.empty(size, np.int32), 1)


# ------------------------------------------------------------------------------------------ keys


def test_splitmix64_is_the_published_sequence():
    """The first outputs of SplitMix64 with seed 1234567, from its authors' test."""
    golden, seed = 0x9E3779B97F4A7C15, 1234567
    states = [(seed + k * golden) % 2**64 for k in range(5)]
    assert [bijection.splitmix64(state) for state in states] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_keys_depend_on_every_number_of_the_stream():
    streams = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (2**64 - 1,), (-1, 5), (5, -1)]
    keys = {round_keys(*stream).tobytes() for stream in streams}
    assert len(keys) == len(streams)
    assert round_keys(3, 4).dtype == np.uint32
    assert round_keys(3, 4).shape == (ROUNDS,)
    np.testing.assert_array_equal(round_keys(3, 4), round_keys(3, 4))


def test_epochs_and_seeds_differ():
    images = [permute(1000, round_keys(*stream), 0, 1000) for stream in ((0, 0), (0, 1), (1, 0))]
    for k, image in enumerate(images):
        for other in images[k + 1 :]:
            assert (image == other).sum() < 10  # one on average


# ------------------------------------------------------------ statistics of random permutations
# Each is a number of standard deviations, over many seeds, from what permutations drawn at random
# have; a fair one stays below five.

SEEDS = 2000


def standardised(values: np.ndarray, mean: float, variance: float) -> float:
    """How far the mean of independent values lies from what it should be."""
    return abs(values.mean() - mean) / math.sqrt(variance / values.size)


def chi_square(counts: np.ndarray) -> float:
    """How far equally likely cells are from equally filled."""
    expected, freedom = counts.sum() / counts.size, counts.size - 1
    return ((counts - expected) ** 2 / expected).sum() / math.sqrt(2 * freedom) - math.sqrt(
        freedom / 2
    )


def statistics(n: int, images: np.ndarray) -> dict[str, float]:
    """Of permutations of [0, n), shape (seeds, n)."""
    steps = np.diff(images, axis=1)
    centred = images - (n - 1) / 2
    lagged = (centred[:, :-1] * centred[:, 1:]).sum(axis=1)
    turns = (steps[:, :-1] > 0) != (steps[:, 1:] > 0)
    spread = (n * n - 1) / 12
    pairs = images[:, 0] * n + images[:, 1]
    off_diagonal = [i * n + j for i in range(n) for j in range(n) if i != j]
    found = {
        # Fixed points: mean 1, variance 1.
        "fixed points": standardised((images == np.arange(n)).sum(axis=1), 1, 1),
        # Ascents, and with them runs: Eulerian numbers.
        "ascents": standardised((steps > 0).sum(axis=1), (n - 1) / 2, (n + 1) / 12),
        # Turning points, the ends of runs up and down.
        "turning points": standardised(turns.sum(axis=1), 2 * (n - 2) / 3, (16 * n - 29) / 90),
        # Successions, i and i + 1 side by side in this order.
        "successions": standardised(
            (steps == 1).sum(axis=1),
            (n - 1) / n,
            (n - 2) / n + (n - 1) / n - ((n - 1) / n) ** 2,
        ),
        # Serial correlation: neighbours in sum lie -variance / (n - 1) apart.
        "serial correlation": standardised(lagged, -spread, lagged.var()),
        "first place": chi_square(np.bincount(images[:, 0], minlength=n)),
        "last place": chi_square(np.bincount(images[:, -1], minlength=n)),
    }
    if n <= 16:  # enough seeds for every pair
        counts = np.bincount(pairs, minlength=n * n)
        assert counts.sum() == counts[off_diagonal].sum()
        found["first pairs"] = chi_square(counts[off_diagonal])
    return found


def images_of(backend, n: int, rounds: int = ROUNDS, seeds: int = SEEDS) -> np.ndarray:
    """Permutations of [0, n) under many seeds; the reference takes any number of rounds."""
    keys = (round_keys(seed, n)[:rounds] for seed in range(seeds))
    return np.stack([backend.permute(n, key, 0, n) for key in keys]).astype(np.int64)


@pytest.mark.parametrize("n", [12, 100, 256, 257, 1000])
def test_statistics_are_a_random_permutations(compiled, n):
    seeds = 20_000 if n <= 16 else SEEDS
    for name, deviations in statistics(n, images_of(compiled, n, seeds=seeds)).items():
        assert deviations < 5, name


@pytest.mark.parametrize("rounds", [2, 3, 4])
def test_statistics_show_too_few_rounds(rounds):
    """Where no cycle is walked, and with a fifth of the seeds."""
    from schuss.backends.reference import ReferenceBackend

    found = statistics(256, images_of(ReferenceBackend(), 256, rounds, SEEDS // 5))
    assert max(found.values()) > 5


def test_neighbouring_epochs_are_uncorrelated(compiled):
    """The same place in two epochs, and in two seeds."""
    n = 500
    for other in ((0, 1), (1, 0)):
        products = []
        for k in range(SEEDS):
            a = compiled.permute(n, round_keys(2 * k, k), 0, n) - (n - 1) / 2
            b = compiled.permute(n, round_keys(2 * k + other[0], k + other[1]), 0, n) - (n - 1) / 2
            products.append(a @ b)
        assert standardised(np.array(products), 0, np.var(products)) < 5


# --------------------------------------------------------------------------- independent numbers


def kolmogorov(sample: np.ndarray) -> float:
    """Largest distance of the sample's distribution from uniform, times the root of its size."""
    ordered, n = np.sort(sample), sample.size
    places = np.arange(n)
    return max((ordered - places / n).max(), ((places + 1) / n - ordered).max()) * math.sqrt(n)


def test_draws_are_uniform():
    for stream in ((0, 0), (0, 1), (12345, 6)):
        sample = draw(round_keys(*stream), 0, 200_000)
        assert sample.dtype == np.float64
        assert 0 <= sample.min() <= sample.max() < 1
        assert kolmogorov(sample) < 2.5  # 1 in 10**5
        assert kolmogorov(sample**1.02) > 2.5  # would be noticed
        centred = sample - 0.5
        lagged = centred[:-1] * centred[1:]
        assert standardised(lagged, 0, 1 / 144) < 5


def test_draws_depend_on_key_and_place_alone():
    keys = round_keys(4, 2)
    whole = draw(keys, 0, 100)
    np.testing.assert_array_equal(draw(keys, 30, 60), whole[30:60])
    assert draw(keys, 5, 5).size == 0
    assert not np.isin(draw(round_keys(4, 3), 0, 100), whole).any()
    assert draw(keys, 2**62, 2**62 + 3).size == 3
