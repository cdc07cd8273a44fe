"""Every rule: the textbook's and torch's steps on every backend, constants, text forms."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import members

import schuss
import schuss.losses
import schuss.rules
from schuss.backends import Problem, Segment, State
from schuss.errors import InvalidArgument, InvalidType
from schuss.formulas.penalties import Penalty
from schuss.formulas.rules import FORMULAS, RULES

every_row = pytest.mark.parametrize("row", list(RULES), ids=lambda row: row.__name__)

FORMS = [
    "sgd",
    "sgd(weight_decay=0.1)",
    "sgd(momentum=0.9)",
    "sgd(momentum=0.9, dampening=0.3, weight_decay=0.1)",
    "sgd(momentum=0.9, dampening=1.0)",
    "sgd(momentum=0.8, nesterov=True, weight_decay=0.1)",
    "adam",
    "adam(betas=(0.0, 0.5), eps=0.001, weight_decay=0.1)",
    "adamw",
    "adamw(betas=(0.8, 0.95), eps=1e-06, weight_decay=0.3)",
    "adagrad",
    "adagrad(lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.2, eps=0.001)",
]
every_form = pytest.mark.parametrize("form", FORMS)

SHAPES = [(3, 4), (5,), (), (0,), (67,)]
STEPS = 30


def options(rule) -> dict:
    """Its parameters by name."""
    return {field.name: getattr(rule, field.name) for field in fields(rule)}


def arrays(rng: np.random.Generator, dtype: np.dtype) -> list[np.ndarray]:
    return [rng.normal(size=shape).astype(np.float32).astype(dtype) for shape in SHAPES]


def applied(backend, rule, dtype: np.dtype):
    """Arrays, their gradients at each step, and what ``apply`` made of the arrays."""
    rng = np.random.default_rng(0)
    start = arrays(rng, dtype)
    gradients = [arrays(rng, dtype) for _ in range(STEPS)]
    params = [array.copy() for array in start]
    slots = [[np.full_like(array, first) for first in rule.slots] for array in start]
    for t, grads in enumerate(gradients):
        before = [grad.copy() for grad in grads]
        backend.apply(rule, params, grads, slots, t, rate(t))
        for grad, kept in zip(grads, before, strict=True):
            np.testing.assert_array_equal(grad, kept)
    return start, gradients, params


def rate(t: int) -> float:
    return 0.1 / (1 + t)


def tolerance(dtype: np.dtype) -> dict[str, float]:
    return {"rtol": 1e-12, "atol": 1e-12} if dtype == np.float64 else {"rtol": 1e-4, "atol": 2e-6}


# -------------------------------------------------------------------------------- one fused step


@every_form
def test_apply_is_the_textbooks_step(backend, dtype, form):
    rule = schuss.rules.get(form)
    start, gradients, params = applied(backend, rule, dtype)
    decay = 0 if rule.name in oracle.DECOUPLED else rule.weight_decay
    for k, param in enumerate(params):
        w, memory = start[k].astype(float), {}
        for t, grads in enumerate(gradients):
            g = grads[k].astype(float) + decay * w
            w = oracle.RULES[rule.name](w, g, rate(t), t, memory, 1.0, **options(rule))
        np.testing.assert_allclose(param, w, **tolerance(dtype))


def torch_optimizer(torch, rule, parameters):
    """The optimizer of torch that a rule is modelled on."""
    classes = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "adagrad": torch.optim.Adagrad,
    }
    return classes[rule.name](parameters, lr=1.0, **options(rule))


@every_form
def test_apply_is_torchs_step(backend, dtype, form):
    torch = pytest.importorskip("torch", reason="torch, the outside oracle, is not installed")
    rule = schuss.rules.get(form)
    start, gradients, params = applied(backend, rule, dtype)
    theirs = [torch.tensor(array, requires_grad=True) for array in start]
    optimizer = torch_optimizer(torch, rule, theirs)
    for t, grads in enumerate(gradients):
        optimizer.param_groups[0]["lr"] = rate(t)
        for tensor, grad in zip(theirs, grads, strict=True):
            tensor.grad = torch.tensor(grad)
        optimizer.step()
    for ours, tensor in zip(params, theirs, strict=True):
        np.testing.assert_allclose(ours, tensor.detach().numpy(), **tolerance(dtype))


def test_apply_takes_no_arrays_and_whole_rates(backend):
    rule = schuss.rules.sgd()
    backend.apply(rule, [], [], [], 0, 0.1)
    w = np.array([1.0, 2.0])
    backend.apply(rule, [w], [np.array([1.0, 1.0])], [[]], 0, 1)
    np.testing.assert_array_equal(w, [0.0, 1.0])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97])
def test_apply_on_odd_sizes(backend, dtype, size):
    """Powers of two throughout, so the step is exact; the neighbours in memory stay as they are."""
    whole = np.arange(size + 2).astype(dtype)
    gradient = np.where(np.arange(size) % 3, 4, -8).astype(dtype)
    backend.apply(schuss.rules.sgd(), [whole[1:-1]], [gradient], [[]], 0, 0.25)
    np.testing.assert_array_equal(whole[1:-1], np.arange(1, size + 1) - gradient / 4)
    assert (whole[0], whole[-1]) == (0, size + 1)


# ------------------------------------------------------------------------------------- conventions


@every_form
def test_decay_spares_the_intercept(backend, dtype, form):
    """At a loss of zero nothing moves but what decays."""
    rule = schuss.rules.get(form)
    n, d = 6, 3
    theta = np.array([1, -2, 4, 0.5], dtype)
    problem = Problem(
        np.zeros((n, d), dtype), np.full(n, 0.5, dtype), None, schuss.losses.squared_error()
    )
    for batch_size in (1, 4):
        state = State.start(theta, rule)
        backend.descend(problem, state, Segment((0, n), np.array([0.01]), batch_size))
        assert state.theta[-1] == theta[-1]
        if rule.weight_decay and rule.name in ("sgd", "adamw"):
            assert (np.abs(state.theta[:-1]) < np.abs(theta[:-1])).all()
        if not rule.weight_decay:
            np.testing.assert_array_equal(state.theta, theta)


def test_decoupled_decay_is_exact(backend, dtype):
    rule = schuss.rules.adamw(weight_decay=0.5)
    problem = Problem(
        np.zeros((2, 2), dtype), np.zeros(2, dtype), None, schuss.losses.squared_error()
    )
    state = State.start(np.array([1, -2, 0], dtype), rule)
    backend.descend(problem, state, Segment((0, 2), np.array([0.5]), 1))
    np.testing.assert_array_equal(state.theta, [0.75**2, -2 * 0.75**2, 0])


@every_form
def test_start_fills_the_slots(dtype, form):
    rule = schuss.rules.get(form)
    theta = np.arange(4).astype(dtype)
    state = State.start(theta, rule, clip_norm=2.0)
    assert state.slots.shape == (len(rule.slots), theta.size)
    assert state.slots.dtype == state.theta.dtype == dtype
    for slot, first in zip(state.slots, rule.slots, strict=True):
        np.testing.assert_array_equal(slot, np.full(theta.size, first, dtype))
    assert (state.step, state.clip_norm, state.average) == (0, 2.0, None)
    state.theta[0] = 9
    assert theta[0] == 0


def test_copy_of_a_state_is_independent():
    state = State.start(np.zeros(3), schuss.rules.adam())
    state.average = np.zeros(3)
    other = state.copy()
    other.theta[0] = other.slots[0, 0] = other.average[0] = other.step = 1
    assert (state.theta[0], state.slots[0, 0], state.average[0], state.step) == (0, 0, 0, 0)


@every_form
def test_constants_are_float64_rows_of_the_steps(form):
    rule = schuss.rules.get(form)
    steps, lr = np.arange(3, 8), np.linspace(0.5, 0.1, 5)
    whole = rule.constants(steps, lr)
    assert whole.dtype == np.float64 and whole.shape[0] == 5
    assert np.isfinite(whole).all()
    for k in range(5):
        np.testing.assert_array_equal(
            rule.constants(steps[k : k + 1], lr[k : k + 1]), whole[k, None]
        )
    if rule.name != "adagrad":
        np.testing.assert_array_equal(whole[:, 0], lr)
    if whole.shape[1] > 1 and rule.name != "adamw":
        np.testing.assert_array_equal(whole[:, 1], 1)
    if rule.name == "adamw":
        np.testing.assert_array_equal(whole[:, 1], 1 - lr * rule.weight_decay)


def test_proximal_rules_are_those_without_adaptive_steps():
    assert [row.__name__ for row in RULES if row.proximal] == ["sgd"]


def test_every_formula_is_used_and_has_a_struct(native):
    from schuss import _native

    used = {schuss.rules.get(form).formula for form in FORMS}
    assert used == set(FORMULAS) == set(_native.rules())


# ----------------------------------------------------------------------------------- value objects


@every_row
def test_value_object(row):
    for rule in [*members(row), *(schuss.rules.get(form) for form in FORMS)]:
        for same in (pickle.loads(pickle.dumps(rule)), copy.deepcopy(rule)):
            assert same == rule
            assert hash(same) == hash(rule)
        assert schuss.rules.get(str(rule)) == rule
        assert eval(repr(rule), {"schuss": schuss}) == rule


@given(
    beta1=st.floats(0, 1, exclude_max=True),
    beta2=st.floats(0, 1, exclude_max=True),
    eps=st.floats(0, 1, exclude_min=True),
)
def test_text_form_keeps_every_digit(beta1, beta2, eps):
    rule = schuss.rules.adamw(betas=[beta1, beta2], eps=eps)
    assert rule.betas == (beta1, beta2)
    assert schuss.rules.get(str(rule)) == rule
    assert eval(repr(rule), {"schuss": schuss}) == rule


@every_row
def test_numbers_are_checked(row):
    for field in fields(row):
        if field.type != "float":
            continue
        name, limits = field.name, field.metadata["limits"]
        for value in (float("nan"), float("inf"), -1.0):
            with pytest.raises(InvalidArgument, match=name):
                row(**{name: value})
        for value in ("0.5", None, False):
            with pytest.raises(InvalidType, match=name):
                row(**{name: value})
        for sign, limit in limits.items():
            if sign in ("<", ">"):
                with pytest.raises(InvalidArgument, match=f"{name}.*{sign} {limit:g}"):
                    row(**{name: limit})


@pytest.mark.parametrize(
    ("form", "error", "named"),
    [
        ("adam(betas=0.9)", InvalidType, "betas=0.9"),
        ("adam(betas=(0.9,))", InvalidType, "betas"),
        ("adam(betas=(0.9, 0.99, 0.999))", InvalidType, "betas"),
        ("adam(betas=(0.9, 1.0))", InvalidArgument, "betas.*1.0"),
        ("adamw(betas=(-0.1, 0.9))", InvalidArgument, "betas.*-0.1"),
        ("adamw(betas=('a', 'b'))", InvalidType, "betas.*'a'"),
        ("sgd(momentum=1)", InvalidArgument, "momentum=1"),
        ("sgd(dampening=1.5)", InvalidArgument, "dampening=1.5"),
        ("sgd(nesterov=True)", InvalidArgument, "nesterov.*momentum"),
        ("sgd(momentum=0.9, dampening=0.1, nesterov=True)", InvalidArgument, "dampening=0.1"),
        ("sgd(nesterov=2)", InvalidType, "nesterov=2"),
        ("sgd(nesterov='yes')", InvalidType, "nesterov='yes'"),
        ("sgd(moment=0.9)", InvalidArgument, "moment"),
        ("sdg", InvalidArgument, "rule='sdg'.*'sgd'"),
        ("adamax", InvalidArgument, "rule='adamax'.*'adam"),
    ],
)
def test_what_is_refused(form, error, named):
    with pytest.raises(error, match=named):
        schuss.rules.get(form)


def test_public_names_are_the_table():
    assert schuss.rules.names() == list(RULES.rows)
    assert set(schuss.rules.__all__) == {*RULES.rows, "Rule", "get", "names"}
    assert set(oracle.RULES) == set(RULES.rows)


def test_penalty_and_decay_add_up(backend, dtype):
    """An L2 penalty and a coupled decay of the same strength are the same step."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(8, 3)).astype(dtype)
    theta, y = rng.normal(size=4).astype(dtype), X[:, 0].copy()
    loss = schuss.losses.squared_error()
    segment = Segment((0, 8), np.array([0.1]), 2)
    made = []
    for l2, decay in ((0.25, 0.0), (0.0, 0.25), (0.125, 0.125)):
        state = State.start(theta, schuss.rules.sgd(momentum=0.5, weight_decay=decay))
        backend.descend(Problem(X, y, None, loss, Penalty(l2=l2)), state, segment)
        made.append(state.theta.tobytes())
    assert len(set(made)) == 1
