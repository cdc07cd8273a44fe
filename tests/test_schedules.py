"""Schedules at points worked out by hand, and beside those of torch and scikit-learn."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

import schuss
from schuss import schedules
from schuss.errors import InvalidArgument, InvalidType
from schuss.formulas.schedules import SCHEDULES, Schedule

ROOT = math.sqrt(0.5)

# A text form, and the rates at some steps.
POINTS = [
    ("constant(0.25)", {0: 0.25, 1: 0.25, 10**9: 0.25}),
    ("step_decay(1.0, every=10, factor=0.5)", {0: 1, 9: 1, 10: 0.5, 19: 0.5, 20: 0.25, 35: 0.125}),
    ("step_decay(2.0, every=1)", {0: 2, 1: 0.2, 3: 0.002}),
    ("exponential(1.0, 0.5, steps=10)", {0: 1, 5: ROOT, 10: 0.5, 30: 0.125}),
    ("exponential(3.0, 1.0)", {0: 3, 7: 3}),
    ("inverse_time(1.0, decay=0.5)", {0: 1, 1: 2 / 3, 2: 0.5, 18: 0.1}),
    ("inverse_time(0.3, decay=0)", {0: 0.3, 100: 0.3}),
    ("inverse_sqrt(1.0)", {0: 1, 3: 0.5, 99: 0.1}),
    ("inverse_sqrt(2.0, timescale=100)", {0: 2, 300: 1}),
    ("power(1.0, exponent=1.0)", {0: 1, 1: 0.5, 3: 0.25}),
    ("power(4.0)", {0: 4, 15: 0.5}),
    ("power(1.0, exponent=100)", {0: 1, 1: 2**-100, 10**9: 0}),
    ("invscaling(0.1, power_t=0.5)", {0: 0.1, 3: 0.05}),
    ("invscaling", {0: 0.01, 15: 0.005}),
    ("optimal(1e-4)", {0: 10, 9000: 1}),
    ("optimal(1.0)", {0: 1, 1: 0.5, 9: 0.1}),
    ("cosine(0.1, steps=1000)", {0: 0.1, 250: 0.05 * (1 + ROOT), 500: 0.05, 1000: 0, 5000: 0}),
    ("cosine(1.0, steps=4, final=0.5)", {0: 1, 2: 0.75, 4: 0.5, 100: 0.5}),
    ("cosine(0.1, steps=2, final=0.3)", {0: 0.1, 1: 0.2, 2: 0.3}),
    ("cosine_restarts(0.1, steps=10)", {0: 0.1, 5: 0.05, 10: 0.1, 15: 0.05, 20: 0.1, 9990: 0.1}),
    (
        "cosine_restarts(0.1, steps=10, factor=2)",
        {0: 0.1, 5: 0.05, 10: 0.1, 20: 0.05, 30: 0.1, 50: 0.05, 70: 0.1},
    ),
    ("cosine_restarts(1.0, steps=4, factor=1.5, final=0.5)", {0: 1, 2: 0.75, 4: 1, 7: 0.75, 10: 1}),
    ("warmup(0.0, 10, then=0.1)", {0: 0, 5: 0.05, 9: 0.09, 10: 0.1, 1000: 0.1}),
    ("warmup(0.2, 2, then=0.1)", {0: 0.2, 1: 0.15, 2: 0.1}),
    ("warmup(0.0, 10, then=cosine(1.0, steps=4))", {0: 0, 5: 0.5, 10: 1, 12: 0.5, 14: 0, 99: 0}),
    ("cyclic(0.0, 1.0, steps=10)", {0: 0, 5: 0.5, 10: 1, 15: 0.5, 20: 0, 25: 0.5, 30: 1}),
    ("cyclic(1.0, 3.0, steps=2, mode='triangular2')", {0: 1, 2: 3, 4: 1, 6: 2, 8: 1, 10: 1.5}),
    ("cyclic(0.0, 1.0, steps=2, mode='cosine')", {0: 0, 1: 0.5, 2: 1, 3: 0.5, 4: 0}),
    ("one_cycle(1.0, steps=11, rise=0.5)", {0: 0.04, 5: 1, 10: 4e-6, 50: 4e-6}),
    (
        "one_cycle(2.0, steps=21, rise=0.2, start_factor=2, final_factor=1)",
        {0: 1, 2: 1.5, 4: 2, 12: 1.5, 20: 1},
    ),
]
TEXTS = [text for text, _ in POINTS]


@pytest.mark.parametrize(("text", "points"), POINTS, ids=TEXTS)
def test_rates_at_hand_computed_points(text, points):
    steps = np.array(list(points))
    np.testing.assert_allclose(
        schedules.get(text)(steps), list(points.values()), rtol=1e-12, atol=1e-16
    )


def test_every_row_of_the_table_is_tested():
    tested = {text.split("(")[0] for text in TEXTS} | {"per_epoch"}
    assert tested == set(schedules.names())


@pytest.mark.parametrize("text", TEXTS)
def test_shape_and_dtype_follow_the_steps(text):
    schedule = schedules.get(text)
    whole = schedule(np.arange(24))
    assert whole.shape == (24,) and whole.dtype == np.float64
    assert np.array_equal(schedule(np.arange(24, dtype=np.int32).reshape(2, 3, 4)).ravel(), whole)
    # A segment's rates do not depend on where it begins and ends.
    cuts = [schedule(np.arange(a, b)) for a, b in [(0, 1), (1, 3), (3, 16), (16, 17), (17, 24)]]
    assert np.array_equal(np.concatenate(cuts), whole)
    np.testing.assert_allclose([float(schedule(t)) for t in range(24)], whole, rtol=1e-14)
    assert schedule(list(range(24))).tolist() == whole.tolist()
    assert schedule(np.empty(0, int)).shape == (0,)
    assert schedule(3).shape == ()


@pytest.mark.parametrize("text", TEXTS)
def test_rates_are_learning_rates(text):
    rates = schedules.get(text)(np.concatenate([np.arange(2000), 10 ** np.arange(4, 13)]))
    assert np.isfinite(rates).all() and (rates >= 0).all()


@pytest.mark.parametrize("text", TEXTS)
def test_text_form_and_repr_come_back(text):
    schedule = schedules.get(text)
    assert schedules.get(str(schedule)) == schedule
    assert eval(repr(schedule), {"schuss": schuss}) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert hash(schedule) == hash(schedules.get(text))


@pytest.mark.parametrize("text", TEXTS)
def test_only_a_constant_says_that_it_is(text):
    schedule = schedules.get(text)
    assert schedule.is_constant == text.startswith("constant")
    assert schedule.bind(7) == schedule


@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0, 7.0, 1.01])
def test_restarts_begin_where_they_should_for_long(factor):
    schedule = schedules.cosine_restarts(1.0, steps=8, factor=factor)
    start, length = 0.0, 8.0
    for _ in range(30):
        first = math.ceil(start)  # the first step of this descent
        expected = 0.5 * (1 + math.cos(math.pi * (first - start) / length))
        assert schedule(first) == pytest.approx(expected, abs=1e-6), (factor, first)
        if first > 0:
            assert schedule(first - 1) < schedule(first)
        start, length = start + length, length * factor
        if start > 1e9:
            break


# ---- Composition ---------------------------------------------------------------------------


def test_warmup_takes_a_number_a_text_or_an_object():
    made = [
        schedules.warmup(0.0, 4, then=then)
        for then in (0.5, "0.5", "constant(0.5)", schedules.constant(0.5))
    ]
    assert all(schedule == made[0] for schedule in made)
    twice = schedules.warmup(0.0, 2, then=schedules.warmup(1.0, 2, then=3.0))
    assert twice(range(6)).tolist() == [0, 0.5, 1, 2, 3, 3]


def test_per_epoch_counts_whole_epochs():
    schedule = schedules.per_epoch("step_decay(1.0, every=1, factor=0.5)")
    bound = schedule.bind(100)
    assert bound([0, 99, 100, 199, 200, 250]).tolist() == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert bound.bind(5) == bound  # a schedule that knows its epochs keeps them
    assert schedules.get(str(bound)) == bound
    with pytest.raises(InvalidArgument, match=r"per_epoch.*not bound"):
        schedule(0)


def test_per_epoch_inside_a_warmup_is_bound_with_it():
    schedule = schedules.warmup(0.0, 2, then="per_epoch(step_decay(1.0, every=1, factor=0.5))")
    assert schedule.bind(3)([0, 1, 2, 4, 5, 8]).tolist() == [0, 0.5, 1, 1, 0.5, 0.25]


def test_per_epoch_of_a_function():
    schedule = schedules.per_epoch(lambda epoch: 1 / (1 + epoch)).bind(2)
    assert schedule(range(5)).tolist() == [1, 1, 0.5, 0.5, 1 / 3]


# ---- Where a schedule is asked for ---------------------------------------------------------


def test_numbers_texts_and_functions_become_schedules():
    assert schedules.get(0.5) == schedules.constant(0.5)
    assert schedules.get(np.float32(0.5)) == schedules.constant(0.5)
    assert schedules.get(2) == schedules.constant(2.0)
    assert schedules.get("0.5") == schedules.constant(0.5)
    assert schedules.get("1e-3") == schedules.constant(1e-3)
    assert schedules.get("invscaling") == schedules.invscaling()
    assert schedules.get(schedules.invscaling) == schedules.invscaling()
    function = schedules.get(lambda t: 1 / (t + 1))
    assert isinstance(function, Schedule) and not function.is_constant
    assert function([0, 1, 3]).tolist() == [1, 0.5, 0.25]
    assert schedules.get(lambda t: 0.5)([0, 1]).tolist() == [0.5, 0.5]


BAD = [
    (lambda: schedules.get(0.0), InvalidArgument, r"learning_rate=0\.0: .*> 0"),
    (lambda: schedules.get(-1), InvalidArgument, r"learning_rate=-1: .*> 0"),
    (lambda: schedules.get(float("nan")), InvalidArgument, r"learning_rate=nan: .*finite"),
    (lambda: schedules.get(float("inf")), InvalidArgument, r"learning_rate=inf: .*finite"),
    (lambda: schedules.get("-0.1"), InvalidArgument, r"learning_rate=-0\.1: .*> 0"),
    (lambda: schedules.get("nan"), InvalidArgument, r"learning_rate=nan: .*finite"),
    (lambda: schedules.get(True), InvalidType, "learning_rate=True: expected a number"),
    (lambda: schedules.get(None), InvalidType, "learning_rate=None: expected a number"),
    (lambda: schedules.get([0.1]), InvalidType, r"learning_rate=\[0\.1\]: expected a number"),
    (lambda: schedules.get(1j), InvalidType, "learning_rate=1j: expected a number"),
    (lambda: schedules.get("cosin"), InvalidArgument, "learning_rate='cosin'.*mean 'cosine'"),
    (lambda: schedules.get("cosine"), InvalidArgument, "learning_rate: cosine.*missing"),
    (lambda: schedules.get("cosine(0.1, 5, stps=3)"), InvalidArgument, "cosine.*stps"),
    (lambda: schedules.get("cosine(0.1,"), InvalidArgument, "not a name or a text form"),
    (lambda: schedules.constant(0.0), InvalidArgument, r"constant.*lr=0\.0.*> 0"),
    (lambda: schedules.constant("0.1"), InvalidType, "constant.*lr='0.1'.*number"),
    (lambda: schedules.step_decay(0.1, every=0), InvalidArgument, "every=0: .*>= 1"),
    (lambda: schedules.step_decay(0.1, every=1.5), InvalidType, r"every=1\.5: .*integer"),
    (lambda: schedules.step_decay(0.1, 1, factor=1.5), InvalidArgument, r"factor=1\.5: .*<= 1"),
    (lambda: schedules.exponential(0.1, factor=0), InvalidArgument, "factor=0: .*> 0"),
    (lambda: schedules.exponential(0.1, 0.5, steps=0), InvalidArgument, "steps=0: .*>= 1"),
    (lambda: schedules.inverse_time(0.1, decay=-1), InvalidArgument, "decay=-1: .*>= 0"),
    (lambda: schedules.inverse_sqrt(0.1, timescale=0), InvalidArgument, "timescale=0: .*> 0"),
    (lambda: schedules.power(0.1, exponent=-1), InvalidArgument, "exponent=-1: .*>= 0"),
    (lambda: schedules.invscaling(eta0=0), InvalidArgument, "eta0=0: .*> 0"),
    (lambda: schedules.optimal(0), InvalidArgument, "alpha=0: .*> 0"),
    (lambda: schedules.cosine(0.1, steps=0), InvalidArgument, "steps=0: .*>= 1"),
    (lambda: schedules.cosine(0.1, steps=5, final=-1), InvalidArgument, "final=-1: .*>= 0"),
    (lambda: schedules.cosine_restarts(0.1, 5, factor=0.5), InvalidArgument, r"factor=0\.5: .*1"),
    (lambda: schedules.warmup(-1, 5, then=0.1), InvalidArgument, "start=-1: .*>= 0"),
    (lambda: schedules.warmup(0, 5, then=-0.1), InvalidArgument, r"-0\.1: .*> 0"),
    (lambda: schedules.cyclic(0.2, 0.1, 5), InvalidArgument, r"cyclic.*low < high"),
    (lambda: schedules.cyclic(0.1, 0.2, 5, mode="triangle"), InvalidArgument, "mean 'triangular"),
    (lambda: schedules.one_cycle(1.0, steps=1), InvalidArgument, "steps=1: .*>= 2"),
    (lambda: schedules.one_cycle(1.0, steps=9, rise=1), InvalidArgument, "rise=1: .*< 1"),
    (lambda: schedules.one_cycle(1.0, 9, start_factor=0.5), InvalidArgument, r"start_factor=0\.5"),
    (lambda: schedules.per_epoch("nothing"), InvalidArgument, "'nothing' is not known"),
    (lambda: schedules.linear_scaling(0, 32, 64), InvalidArgument, "lr=0: .*> 0"),
    (lambda: schedules.linear_scaling(0.1, 0, 64), InvalidArgument, "base_batch=0: .*>= 1"),
    (lambda: schedules.sqrt_scaling(0.1, 32, 6.4), InvalidType, r"batch=6\.4: .*integer"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_bad_parameters_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_scaling_with_the_batch_size():
    assert schedules.linear_scaling(0.1, base_batch=256, batch=1024) == pytest.approx(0.4)
    assert schedules.linear_scaling(0.1, base_batch=256, batch=64) == pytest.approx(0.025)
    assert schedules.sqrt_scaling(0.1, base_batch=256, batch=1024) == pytest.approx(0.2)
    assert schedules.sqrt_scaling(0.1, base_batch=32, batch=32) == 0.1


def test_robbins_and_monro():
    """Sums of rates grow without bound and sums of squares converge, where the pages say so."""
    t = np.arange(10**6)
    for text, squares_converge in [
        ("inverse_time(1.0, decay=1.0)", True),
        ("power(1.0, exponent=0.75)", True),
        ("inverse_sqrt(1.0)", False),
    ]:
        rates = schedules.get(text)(t)
        blocks = [(10**k, 10 ** (k + 1)) for k in (2, 3, 4, 5)]  # equal in log t
        sums = [rates[a:b].sum() for a, b in blocks]
        squares = [(rates[a:b] ** 2).sum() for a, b in blocks]
        assert min(sums) > 0.5 * sums[0], text
        assert (squares[-1] < 0.2 * squares[0]) == squares_converge, text


# ---- Outside oracles -----------------------------------------------------------------------


def torch_rates(make, steps: int) -> list[float]:
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


TORCH = [
    ("step_decay(0.1, every=7, factor=0.5)", lambda s, o: s.StepLR(o, 7, gamma=0.5)),
    ("exponential(0.1, 0.9)", lambda s, o: s.ExponentialLR(o, 0.9)),
    ("inverse_time(0.1, decay=0.2)", lambda s, o: s.LambdaLR(o, lambda t: 1 / (1 + 0.2 * t))),
    (
        "warmup(0.01, 10, then=0.1)",
        lambda s, o: s.LinearLR(o, start_factor=0.1, end_factor=1.0, total_iters=10),
    ),
    (
        "cosine(0.1, steps=60, final=0.02)",
        lambda s, o: s.CosineAnnealingLR(o, T_max=60, eta_min=0.02),
    ),
    (
        "cosine_restarts(0.1, steps=8, final=0.02)",
        lambda s, o: s.CosineAnnealingWarmRestarts(o, T_0=8, eta_min=0.02),
    ),
    (
        "cosine_restarts(0.1, steps=5, factor=2)",
        lambda s, o: s.CosineAnnealingWarmRestarts(o, T_0=5, T_mult=2),
    ),
    (
        "cyclic(0.02, 0.1, steps=6)",
        lambda s, o: s.CyclicLR(o, 0.02, 0.1, step_size_up=6, cycle_momentum=False),
    ),
    (
        "cyclic(0.02, 0.1, steps=6, mode='triangular2')",
        lambda s, o: s.CyclicLR(
            o, 0.02, 0.1, step_size_up=6, mode="triangular2", cycle_momentum=False
        ),
    ),
    # torch's rise ends at pct_start * total_steps - 1, ours at rise * (steps - 1).
    (
        "one_cycle(0.1, steps=61, rise=0.3)",
        lambda s, o: s.OneCycleLR(o, 0.1, total_steps=61, pct_start=19 / 61, cycle_momentum=False),
    ),
]


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own, on its last step
@pytest.mark.parametrize(("text", "make"), TORCH, ids=[text for text, _ in TORCH])
def test_agrees_with_torch(text, make):
    steps = 60
    np.testing.assert_allclose(
        schedules.get(text)(np.arange(steps)), torch_rates(make, steps), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("name", ["invscaling", "optimal"])
def test_runs_like_scikit_learn(name):
    """The same steps on the same rows in the same order end in the same weights."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    X, alpha = rng.normal(size=(300, 4)), 0.01
    y = np.sign(X @ [1.0, -2.0, 0.5, 0.0] + rng.normal(size=300))
    theirs = linear_model.SGDClassifier(
        loss="hinge",
        alpha=alpha,
        learning_rate=name,
        eta0=0.05,
        power_t=0.3,
        shuffle=False,
        max_iter=2,
        tol=None,
        fit_intercept=False,
    ).fit(X, y)
    schedule = (
        schedules.optimal(alpha) if name == "optimal" else schedules.invscaling(0.05, power_t=0.3)
    )
    ours = schuss.fit(
        X,
        y,
        loss="hinge",
        alpha=alpha,
        learning_rate=schedule,
        order="sequential",
        batch_size=1,
        epochs=2,
        fit_intercept=False,
    )
    np.testing.assert_allclose(ours.coef, theirs.coef_[0], rtol=1e-9)


def test_table_lists_its_rows_in_order():
    assert schedules.names() == list(SCHEDULES.rows)
    assert all(issubclass(row, Schedule) for row in SCHEDULES)
