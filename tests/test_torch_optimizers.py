"""The optimizers of schuss.torch beside torch.optim's, step by step."""

from __future__ import annotations

import copy
import io
import math
import pickle
import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import run_python

pytest.importorskip("torch")
pytest.importorskip("schuss._native")
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import schuss.torch as ours
from schuss import errors
from schuss.torch import tensors

NAMES = ("SGD", "Adam", "AdamW", "Adagrad")
# Sizes below, at and above those of vectors, tiles and threads' shares.
SIZES = (0, 1, 2, 7, 15, 16, 17, 31, 33, 65, 1000, 16384, 16385, 70001)
ULPS = {torch.float32: 4, torch.float64: 2}


def options(name: str) -> st.SearchStrategy[dict]:
    """Random options of an optimizer."""
    rate, decay, flag = st.floats(1e-4, 1.0), st.sampled_from([0.0, 0.01, 0.3]), st.booleans()
    common = {"lr": rate, "weight_decay": decay, "maximize": flag}
    if name == "SGD":
        plain = {"momentum": st.just(0.0)}
        damped = {"momentum": st.floats(0.1, 0.99), "dampening": st.floats(0, 1)}
        ahead = {"momentum": st.floats(0.1, 0.99), "nesterov": st.just(True)}
        kinds = [st.fixed_dictionaries(common | more) for more in (plain, damped, ahead)]
        return st.one_of(kinds)
    if name == "Adagrad":
        more = {"lr_decay": st.floats(0, 0.5), "initial_accumulator_value": st.floats(0, 1)}
    else:
        betas = st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999))
        more = {"betas": betas, "amsgrad": flag}
    return st.fixed_dictionaries(common | more | {"eps": st.sampled_from([1e-10, 1e-8, 1e-3])})


def parameters(shapes, dtype=torch.float32, seed=0):
    """Parameters of these shapes, and what draws gradients for them."""
    generator = torch.Generator().manual_seed(seed)
    params = [
        torch.randn(shape, dtype=dtype, generator=generator).requires_grad_() for shape in shapes
    ]
    return params, generator


def twins(params):
    return [p.detach().clone().requires_grad_() for p in params]


def draw_gradients(pairs, generator):
    for p, q in pairs:
        scale = 10 ** float(torch.randn((), generator=generator))
        p.grad = torch.randn(p.shape, dtype=p.dtype, generator=generator) * scale
        q.grad = p.grad.clone()


def units(new, other, old):
    """Largest difference in units in the last place of what was added up."""
    size = torch.stack([new.abs(), old.abs(), (new - old).abs()]).amax(0)
    apart = (new - other).abs() / (size * torch.finfo(new.dtype).eps).clamp_min(1e-300)
    return float(apart.max()) if apart.numel() else 0.0


def step_apart(reference, optimizer, pairs):
    """Step both, and how far apart the parameters and states then are."""
    old = [p.detach().clone() for p, _ in pairs]
    memory = [
        {k: v.clone() for k, v in reference.state.get(p, {}).items() if v is not None}
        for p, _ in pairs
    ]
    reference.step()
    optimizer.step()
    apart = 0.0
    for (p, q), before, kept in zip(pairs, old, memory, strict=True):
        apart = max(apart, units(p.detach(), q.detach(), before))
        theirs, own = reference.state.get(p, {}), optimizer.state.get(q, {})
        assert list(theirs) == list(own)
        for name, value in theirs.items():
            if name == "step":
                assert torch.equal(value, own[name]) and value.dtype == own[name].dtype
            else:
                begin = kept.get(name, torch.zeros_like(value))
                apart = max(apart, units(value, own[name], begin))
        # The next step begins at the same numbers.
        with torch.no_grad():
            q.copy_(p)
            for name, value in theirs.items():
                own[name].copy_(value)
    return apart


@pytest.mark.parametrize("dtype", ULPS, ids=str)
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_random_configurations_agree_with_torch(name, dtype, data):
    kwargs = data.draw(options(name))
    shapes = data.draw(st.lists(st.sampled_from(SIZES[:-3]), min_size=1, max_size=4))
    params, generator = parameters(shapes, dtype, data.draw(st.integers(0, 1000)))
    pairs = list(zip(params, twins(params), strict=True))
    reference = getattr(torch.optim, name)([p for p, _ in pairs], **kwargs)
    optimizer = getattr(ours, name)([q for _, q in pairs], **kwargs)
    for _ in range(3):
        draw_gradients(pairs, generator)
        assert step_apart(reference, optimizer, pairs) <= ULPS[dtype]


@pytest.mark.parametrize("dtype", ULPS, ids=str)
@pytest.mark.parametrize(
    "kwargs",
    [{}, {"momentum": 0.9, "dampening": 0.1}, {"momentum": 0.9, "nesterov": True}],
    ids=["plain", "momentum", "nesterov"],
)
def test_sgd_is_torchs_to_the_last_bit(instruction_set, dtype, kwargs):
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("torch fuses products and sums on machines with AVX2 only")
    instruction_set("avx2")
    params, generator = parameters(SIZES, dtype)
    pairs = list(zip(params, twins(params), strict=True))
    reference = torch.optim.SGD(params, lr=0.1, weight_decay=0.01, **kwargs)
    optimizer = ours.SGD([q for _, q in pairs], lr=0.1, weight_decay=0.01, **kwargs)
    for _ in range(4):
        draw_gradients(pairs, generator)
        reference.step()
        optimizer.step()
        assert all(torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("kind", [*NAMES, "LARS", "LAMB"])
def test_instruction_sets_agree(instruction_set, name, kind):
    made = []
    for chosen in ("baseline", name):
        instruction_set(chosen)
        params, generator = parameters(SIZES, torch.float64)
        optimizer = getattr(ours, kind)(params, lr=0.1, weight_decay=0.01)
        for _ in range(3):
            draw_gradients([(p, p) for p in params], generator)
            optimizer.step()
        made.append(params)
    for p, q in zip(*made, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)


@pytest.mark.threads
@pytest.mark.parametrize("kind", [*NAMES, "LARS", "LAMB"])
def test_any_number_of_threads_gives_the_same_bits(kind, monkeypatch):
    from schuss.torch import optimizers

    monkeypatch.setattr(optimizers, "NUMBERS_PER_THREAD", 1)
    made = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        params, generator = parameters((5, 70001, 0, 16384, 40000, 3))
        optimizer = getattr(ours, kind)(params, lr=0.1, max_grad_norm=1.0)
        for _ in range(3):
            draw_gradients([(p, p) for p in params], generator)
            optimizer.step()
        made.append((params, optimizer.grad_norm))
    for params, norm in made[1:]:
        assert norm == made[0][1]
        assert all(torch.equal(p, q) for p, q in zip(params, made[0][0], strict=True))


# ---- What state holds, and where it goes -----------------------------------------------------


KINDS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("Adam", {"amsgrad": True}),
    ("AdamW", {}),
    ("Adagrad", {"lr_decay": 0.1}),
]


@pytest.mark.parametrize("to_ours", [True, False], ids=["to ours", "to torch"])
@pytest.mark.parametrize(("name", "kwargs"), KINDS)
def test_a_state_dict_of_either_goes_on_in_the_other(name, kwargs, to_ours):
    first, second = (torch.optim, ours) if to_ours else (ours, torch.optim)
    params, generator = parameters((3, 100, 17), torch.float64)
    copies = twins(params)
    one = getattr(first, name)(params, **kwargs)
    for _ in range(3):
        draw_gradients([(p, p) for p in params], generator)
        one.step()
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        for p, q in zip(params, copies, strict=True):
            q.copy_(p)
    other = getattr(second, name)(copies, lr=123.0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(3):
        draw_gradients(list(zip(params, copies, strict=True)), generator)
        one.step()
        other.step()
        for p, q in zip(params, copies, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(("name", "kwargs"), KINDS)
def test_copies_and_pickles_go_on_alike(name, kwargs):
    params, generator = parameters((3, 5))
    optimizer = getattr(ours, name)(params, max_grad_norm=2.0, **kwargs)
    draw_gradients([(p, p) for p in params], generator)
    optimizer.step()
    for copy_of in (copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        copied = copy_of(optimizer)
        assert copied.max_grad_norm == 2.0
        own = copied.param_groups[0]["params"]
        for p, q in zip(params, own, strict=True):
            q.grad = p.grad.clone()
        optimizer.step()
        copied.step()
        assert all(torch.equal(p, q) for p, q in zip(params, own, strict=True))


def test_old_checkpoints_load():
    params, _ = parameters((3,))
    optimizer = ours.Adam(params)
    state = optimizer.state_dict()
    for name in ("amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused"):
        state["param_groups"][0].pop(name)
    state["state"] = {0: {"step": 7, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}}
    optimizer.load_state_dict(state)
    params[0].grad = torch.ones(3)
    optimizer.step()
    assert float(optimizer.state[params[0]]["step"]) == 8


def test_a_loaded_state_is_a_copy():
    params, _ = parameters((3,))
    optimizer = ours.SGD(params, momentum=0.9)
    params[0].grad = torch.ones(3)
    optimizer.step()
    state = optimizer.state_dict()
    kept = state["state"][0]["momentum_buffer"].clone()
    other = ours.SGD(twins(params), momentum=0.9)
    other.load_state_dict(state)
    other.param_groups[0]["params"][0].grad = torch.ones(3)
    other.step()
    assert torch.equal(state["state"][0]["momentum_buffer"], kept)


def test_state_begins_in_the_default_dtype():
    params, _ = parameters((3,))
    params[0].grad = torch.ones(3)
    torch.set_default_dtype(torch.float64)
    try:
        optimizer = ours.Adam(params)
        optimizer.step()
        optimizer.step()
    finally:
        torch.set_default_dtype(torch.float32)
    step = optimizer.state[params[0]]["step"]
    assert step.dtype == torch.float64 and float(step) == 2


# ---- Steps that are left out, scaled or clipped ----------------------------------------------


@pytest.mark.parametrize(("name", "kwargs"), [*KINDS, ("LARS", {}), ("LAMB", {})])
def test_a_skipped_first_step_touches_nothing(name, kwargs):
    params, generator = parameters((3, 70))
    copies = twins(params)
    optimizer, other = (getattr(ours, name)(p, **kwargs) for p in (params, copies))
    draw_gradients(list(zip(params, copies, strict=True)), generator)
    before = copy.deepcopy(optimizer.state_dict())
    optimizer.found_inf = torch.ones(1)
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, copies, strict=True))
    assert str(optimizer.state_dict()) == str(before)
    optimizer.found_inf = torch.zeros(1)
    for _ in range(2):
        optimizer.step()
        other.step()
    assert all(torch.equal(p, q) for p, q in zip(params, copies, strict=True))


@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize("unscale", [False, True])
def test_grad_scaler(infinite, unscale):
    made = []
    for classes in (torch.optim, ours):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        optimizer = classes.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        for k in range(4):
            optimizer.zero_grad()
            loss = model(torch.ones(3, 4)).square().sum()
            scaler.scale(loss).backward()
            if infinite and k in (0, 2):
                model.weight.grad[0, 0] = math.inf
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        made.append((model.weight.detach(), scaler.get_scale()))
    assert torch.equal(made[0][0], made[1][0]) and made[0][1] == made[1][1]


@pytest.mark.parametrize("name", [*NAMES, "LARS", "LAMB"])
def test_clipping_is_clip_grad_norm_and_a_step(name):
    params, generator = parameters((3, 100, 20000), torch.float64)
    copies = twins(params)
    clipped = getattr(ours, name)(params, lr=0.1, max_grad_norm=0.5)
    plain = getattr(ours, name)(copies, lr=0.1)
    for _ in range(3):
        draw_gradients(list(zip(params, copies, strict=True)), generator)
        kept = [p.grad.clone() for p in params]
        norm = torch.nn.utils.clip_grad_norm_(copies, 0.5)
        clipped.step()
        plain.step()
        assert clipped.grad_norm == pytest.approx(float(norm), rel=1e-12)
        for p, q, g in zip(params, copies, kept, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)
            assert torch.equal(p.grad, g)


@pytest.mark.parametrize("name", [*NAMES, "LARS", "LAMB"])
def test_gradients_that_are_no_numbers_spread_as_in_torch(name):
    params, _ = parameters((40,))
    optimizer = getattr(ours, name)(params)
    params[0].grad = torch.ones(40)
    params[0].grad[3], params[0].grad[20] = math.nan, math.inf
    optimizer.step()
    if name in NAMES:
        copies, _ = parameters((40,))
        copies[0].grad = params[0].grad
        getattr(torch.optim, name)(copies).step()
        assert torch.equal(params[0].isnan(), copies[0].isnan())
    else:
        assert bool(params[0].isnan().any())


# ---- Tensors of all kinds --------------------------------------------------------------------


def shapes_of_all_kinds():
    """Names of layouts, and parameters that have them."""
    base = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    yield "transposed", base[0, 0].t()
    yield "channels last", base.to(memory_format=torch.channels_last)
    yield "with gaps", base[:, ::2]
    yield "scalar", torch.tensor(1.5)
    yield "empty", torch.zeros(0, 3)
    yield "complex", torch.complex(base[0], base[1])


LAYOUTS = dict(shapes_of_all_kinds())


@pytest.mark.parametrize("gradient", ["alike", "contiguous", "expanded", "negated"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "kwargs"), KINDS)
def test_any_strides(name, kwargs, layout, gradient):
    original = LAYOUTS[layout]
    storage = torch.empty_strided(original.size(), original.stride(), dtype=original.dtype)
    made = []
    for classes in (torch.optim, ours):
        p = torch.nn.Parameter(storage.clone().copy_(original))
        if layout == "with gaps":
            p = torch.zeros(4, 3, 5, 5)[:, ::2].copy_(original).requires_grad_()
        optimizer = getattr(classes, name)([p], **kwargs)
        generator = torch.Generator().manual_seed(1)
        for _ in range(3):
            g = torch.randn(p.shape, dtype=p.dtype, generator=generator)
            if gradient == "alike":
                g = torch.empty_like(p).copy_(g)
            elif gradient == "expanded" and p.ndim:
                g = g[:1].expand(p.shape) if p.shape[0] else g
            elif gradient == "negated":
                g = torch.complex(g.real, -g.real).conj().imag if not p.is_complex() else g
            p.grad = g
            optimizer.step()
        made.append(p.detach())
    torch.testing.assert_close(made[0], made[1], rtol=1e-6, atol=1e-6)
    assert made[0].stride() == made[1].stride()


def test_parameters_of_several_dtypes_and_without_gradients():
    params, _ = parameters((5, 6, 7, 8, 9))
    params = [
        params[0].detach().double().requires_grad_(),
        params[1],
        params[2].detach().bfloat16().requires_grad_(),
        params[3],
        params[4].detach().t().requires_grad_(),
    ]
    before = params[3].detach().clone()
    optimizer = ours.AdamW(params, lr=0.1)
    for p in (params[0], params[1], params[2], params[4]):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.equal(params[3], before) and params[3] not in optimizer.state
    for p in (params[0], params[1], params[2], params[4]):
        assert float(optimizer.state[p]["step"]) == 1
    optimizer.zero_grad()
    optimizer.step()
    params[1].grad = torch.ones_like(params[1])
    optimizer.step()
    assert [float(optimizer.state[p]["step"]) for p in (params[0], params[1])] == [1, 2]


def test_parameters_that_step_unequally_often():
    made = []
    for classes in (torch.optim, ours):
        params, generator = parameters((5, 6, 7), torch.float64)
        optimizer = classes.Adam(params, lr=0.1)
        for k in range(6):
            for place, p in enumerate(params):
                p.grad = torch.randn(p.shape, dtype=p.dtype, generator=generator)
                if k % (place + 1):
                    p.grad = None
            optimizer.step()
        made.append(params)
    for p, q in zip(*made, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("name", "kwargs"), KINDS)
def test_states_that_began_in_another_order(name, kwargs):
    made = []
    for order in ((0, 1, 2), (2, 0, 1)):
        params, generator = parameters((5, 6, 7))
        optimizer = getattr(ours, name)([{"params": params[:2]}, {"params": params[2:]}], **kwargs)
        for k in order:
            for p in params:
                p.grad = None
            params[k].grad = torch.ones_like(params[k])
            optimizer.step()
        for _ in range(2):
            draw_gradients([(p, p) for p in params], generator)
            optimizer.step()
        made.append(params)
    assert all(torch.equal(p, q) for p, q in zip(*made, strict=True))


def test_parameters_that_move():
    params, _ = parameters((5, 6))
    optimizer = ours.SGD(params, lr=1.0)
    for size in (4, 9):
        params[0].data = torch.zeros(size)
        params[0].grad = torch.ones(size)
        optimizer.step()
        assert params[0].tolist() == [-1.0] * size


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_sixteen_bits_are_computed_in_float32_and_rounded_once(instruction_set, name, dtype):
    instruction_set(name)
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    w = every.clone().requires_grad_()
    w.grad = every[torch.randperm(every.numel(), generator=torch.Generator().manual_seed(0))]
    expected = torch.add(w.detach().float(), w.grad.float(), alpha=-0.1).to(dtype)
    ours.SGD([w], lr=0.1).step()
    unequal = (w.detach() != expected) & ~(w.detach().isnan() & expected.isnan())
    if name == "baseline":  # the product is rounded, too
        assert int(unequal.sum()) < 50
    else:
        assert not bool(unequal.any())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_moments_of_sixteen_bits_follow_those_of_float32(dtype):
    wide = torch.randn(1000, generator=torch.Generator().manual_seed(0)) / 10
    wide = wide.to(dtype).float()
    narrow = wide.to(dtype).requires_grad_()
    wide.requires_grad_()
    optimizers = [ours.AdamW([p], lr=0.01) for p in (wide, narrow)]
    for k in range(20):
        wide.grad = torch.full((1000,), 0.5 + k % 3)
        narrow.grad = wide.grad.to(dtype)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(narrow.detach().float(), wide.detach(), rtol=0.03, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("start", [1.0, 3e-6])
def test_stochastic_rounding_keeps_the_mean(dtype, start):
    rate = 2.0**-13  # steps far below half a unit in the last place
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        w = torch.full((20000,), start, dtype=dtype, requires_grad=True)
        first = float(w.detach()[0])
        optimizer = ours.SGD([w], lr=rate, stochastic_rounding=True)
        w.grad = torch.full_like(w, start)
        for _ in range(16):
            optimizer.step()
        made.append(w.detach())
    moved = float(first - made[0].double().mean())
    assert moved == pytest.approx(16 * rate * first, rel=0.25)
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    nearest = torch.full((8,), start, dtype=dtype, requires_grad=True)
    nearest.grad = torch.full_like(nearest, start)
    ours.SGD([nearest], lr=rate).step()
    assert float(nearest.detach()[0]) == first


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's
@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sparse_gradients(name, momentum):
    made = []
    kwargs = {"momentum": momentum} if name == "SGD" else {"lr_decay": momentum / 10}
    for classes in (torch.optim, ours):
        torch.manual_seed(0)
        table = torch.nn.Embedding(20, 3, sparse=True)
        dense = torch.nn.Linear(3, 1)
        params = [*table.parameters(), *dense.parameters()]
        optimizer = getattr(classes, name)(params, lr=0.1, **kwargs)
        for rows in ([1, 2, 2, 5], [2, 7], [1, 1]):
            optimizer.zero_grad()
            dense(table(torch.tensor(rows))).square().sum().backward()
            optimizer.step()
        made.append([p.detach() for p in params])
    for p, q in zip(*made, strict=True):
        torch.testing.assert_close(p, q)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "LARS", "LAMB"])
def test_sparse_gradients_are_refused_by_name(name):
    w = torch.ones(3, requires_grad=True)
    w.grad = torch.eye(3)[0].to_sparse()
    optimizer = getattr(ours, name)([w])
    with pytest.raises(RuntimeError, match=f"{name} does not support sparse gradients"):
        optimizer.step()


# ---- torch's ways ----------------------------------------------------------------------------


def test_autograd_sees_that_parameters_have_changed():
    w = torch.ones(3, requires_grad=True)
    loss = w.square().sum()
    w.grad = torch.ones(3)
    ours.SGD([w]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_closures_hooks_and_groups():
    a, b = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = ours.SGD([{"params": [a]}, {"params": [b], "lr": 0.0}], lr=0.25)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))

    def closure():
        assert torch.is_grad_enabled()
        calls.append("closure")
        optimizer.zero_grad()
        loss = (a + b).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert float(optimizer.step(closure)) == 4
    assert calls == ["pre", "closure", "post"]
    assert a.tolist() == [0.75, 0.75] and b.tolist() == [1, 1]
    assert optimizer.step() is None
    c = torch.zeros(1, requires_grad=True)
    c.grad = torch.ones(1)
    optimizer.add_param_group({"params": [c], "lr": 1.0})
    optimizer.step()
    assert c.item() == -1


def test_hooks_of_all_optimizers_and_profilers_see_a_step():
    w = torch.ones(2, requires_grad=True)
    w.grad = torch.ones(2)
    optimizer, calls = ours.SGD([w], lr=0.25), []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: calls.append("pre")),
        register_optimizer_step_post_hook(lambda *_: calls.append("post")),
    ]
    optimizer.step()
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert calls == ["pre", "post"]
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
    assert "Optimizer.step#SGD.step" in {event.name for event in profile.function_events}
    assert w.tolist() == [0.25, 0.25]


def test_a_hook_may_change_what_a_step_is_given():
    w = torch.ones(2, requires_grad=True)
    w.grad = torch.ones(2)
    optimizer = ours.SGD([w], lr=1.0)
    optimizer.register_step_pre_hook(lambda _, args, given: (args, {**given, "divisor": 4.0}))
    optimizer.step()
    assert w.tolist() == [0.75, 0.75]


def test_a_tensor_as_learning_rate_is_kept_by_reference():
    lr = torch.tensor(0.5)
    w = torch.zeros(1, requires_grad=True)
    optimizer = ours.SGD([w], lr=lr)
    w.grad = torch.ones(1)
    optimizer.step()
    lr.fill_(2.0)
    optimizer.step()
    assert w.item() == -2.5 and optimizer.param_groups[0]["lr"] is lr


def schedulers():
    lr = torch.optim.lr_scheduler
    return {
        "StepLR": lambda o: lr.StepLR(o, 2),
        "OneCycleLR": lambda o: lr.OneCycleLR(o, 0.5, total_steps=10),
        "CosineAnnealingWarmRestarts": lambda o: lr.CosineAnnealingWarmRestarts(o, 3),
        "CyclicLR": lambda o: lr.CyclicLR(o, 0.01, 0.1, 2),
        "SequentialLR": lambda o: lr.SequentialLR(
            o, [lr.ConstantLR(o), lr.ExponentialLR(o, 0.9)], [3]
        ),
        "LambdaLR": lambda o: lr.LambdaLR(o, lambda k: 1 / (k + 1)),
        "PolynomialLR": lambda o: lr.PolynomialLR(o, 5),
        "ReduceLROnPlateau": lambda o: lr.ReduceLROnPlateau(o, patience=1),
    }


@pytest.mark.parametrize("scheduler", schedulers())
@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_learning_rate_schedulers(name, scheduler):
    made = []
    for classes in (torch.optim, ours):
        w = torch.ones(3, dtype=torch.float64, requires_grad=True)
        more = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(classes, name)([w], lr=0.1, **more)
        schedule = schedulers()[scheduler](optimizer)
        for _ in range(8):
            optimizer.zero_grad()
            loss = w.square().sum()
            loss.backward()
            optimizer.step()
            schedule.step(*[loss.item()] * (scheduler == "ReduceLROnPlateau"))
        made.append(w.detach())
    torch.testing.assert_close(made[0], made[1], rtol=1e-13, atol=0)


def test_differentiable_steps_are_torchs():
    lr = torch.tensor(0.5, requires_grad=True)
    w = torch.ones(2, requires_grad=True).clone()
    w.grad = torch.ones(2)
    counted = []
    optimizer = ours.SGD([{"params": []}], lr=lr, differentiable=True)
    optimizer.param_groups[0]["params"] = [w]
    optimizer.register_step_post_hook(lambda *_: counted.append(1))
    optimizer.step()
    w.sum().backward()
    assert float(lr.grad) == -2 and counted == [1]


def test_a_compiled_step_breaks_the_graph_cleanly():
    w = torch.ones(3, requires_grad=True)
    optimizer = ours.Adam([w], lr=0.1)
    w.grad = torch.ones(3)

    @torch.compile(backend="eager")
    def step():
        optimizer.step()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._dynamo.utils.counters.clear()
        step()
        step()
    assert float(optimizer.state[w]["step"]) == 2
    assert len(torch._dynamo.utils.counters["graph_break"]) == 1


def test_flags_that_mean_nothing_here_warn_once():
    w = torch.ones(3, requires_grad=True)
    with pytest.warns(UserWarning, match="Adam: foreach and capturable ignored"):
        optimizer = ours.Adam([w], foreach=True, capturable=True)
    w.grad = torch.ones(3)
    optimizer.step()
    ours.Adam([w], fused=True).step()
    with pytest.raises(RuntimeError, match=r"fused.*foreach"):
        ours.SGD([w], fused=True, foreach=True)
    with pytest.raises(RuntimeError, match=r"fused.*differentiable"):
        ours.Adam([w], fused=True, differentiable=True)


def test_without_torchs_table_of_functions(monkeypatch):
    params, _ = parameters((5, 6))
    row = [*params, params[0].detach().t(), torch.zeros(2, 3).t(), torch.zeros(2).bfloat16()]
    columns = [row, [t.detach().clone() for t in row]]
    found = tensors.describe(columns)
    monkeypatch.setattr(tensors, "EXCHANGE", None)
    slow = tensors.describe(columns)
    known = found[2] >= 0
    assert known.tolist() == [True, True, True, False, True] and found[3] == slow[3] == -1
    assert np.array_equal(found[2], slow[2])
    for a, b in zip(found[:2], slow[:2], strict=True):
        assert np.array_equal(a[known], b[known])
    optimizer = ours.Adam(params)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert float(optimizer.state[params[1]]["step"]) == 1


# ---- Bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kwargs", "error", "message"),
    [
        ("SGD", {"lr": -1}, ValueError, "learning rate"),
        ("SGD", {"nesterov": True}, ValueError, "Nesterov"),
        ("Adam", {"betas": (1.0, 0.9)}, ValueError, "beta"),
        ("SGD", {"max_grad_norm": 0}, ValueError, "max_grad_norm=0: expected"),
        ("Adam", {"stochastic_rounding": 1}, TypeError, "stochastic_rounding=1: expected True"),
        ("LARS", {"momentum": 1}, ValueError, "momentum"),
        ("LARS", {"trust_coefficient": 0}, ValueError, "trust_coefficient"),
        ("LARS", {"layer_adaptation": "no"}, TypeError, "layer_adaptation='no'"),
        ("LAMB", {"betas": 0.9}, TypeError, "betas=0.9"),
        ("LAMB", {"betas": (0.9, 1.0)}, ValueError, "betas"),
        ("LAMB", {"eps": -1}, ValueError, "eps"),
    ],
)
def test_bad_options(name, kwargs, error, message):
    with pytest.raises(error, match=message):
        getattr(ours, name)([torch.ones(2, requires_grad=True)], **kwargs)


@pytest.mark.parametrize("name", [*NAMES, "LARS", "LAMB"])
def test_misspelt_options(name):
    with pytest.raises(TypeError, match=f"{name} has no parameter 'weigth_decay'.*'weight_decay'"):
        getattr(ours, name)([torch.ones(2, requires_grad=True)], weigth_decay=0.1)


def test_tensors_that_no_kernel_takes():
    w = torch.ones(2, requires_grad=True)
    w.grad = torch.ones(2)
    meta = torch.ones(2, device="meta", requires_grad=True)
    meta.grad = torch.ones(2, device="meta")
    with pytest.raises(errors.TensorError, match="meta"):
        ours.SGD([meta]).step()
    optimizer = ours.SGD([w], momentum=0.9)
    optimizer.state[w]["momentum_buffer"] = torch.zeros(3)
    with pytest.raises(errors.TensorError, match=r"momentum_buffer of params\[0\].*\(3,\)"):
        optimizer.step()


def test_without_the_native_extension():
    code = """
        import sys
        sys.modules["schuss._native"] = None
        import torch
        from schuss.torch import batches
        print(len(batches(torch.ones(5), batch_size=2)))
        try:
            from schuss.torch import SGD
        except RuntimeError as error:
            print(error)
    """
    assert re.match(r"3\nbackend='native' cannot be used", run_python(code))


# ---- LARS and LAMB ---------------------------------------------------------------------------


def textbook_lars(w, g, v, *, lr, momentum, weight_decay, trust, adapt):
    norm, length = np.linalg.norm(w), np.linalg.norm(g)
    ratio = trust * norm / (length + weight_decay * norm) if adapt and norm and length else 1.0
    v = momentum * v + lr * ratio * (g + weight_decay * w)
    return w - v, v


def textbook_lamb(w, g, m, v, t, *, lr, betas, eps, weight_decay, adapt):
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    r = m / (1 - betas[0] ** t) / (np.sqrt(v / (1 - betas[1] ** t)) + eps) + weight_decay * w
    norm, length = np.linalg.norm(w), np.linalg.norm(r)
    return w - lr * (norm / length if adapt and norm and length else 1.0) * r, m, v


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("size", [1, 17, 40000])
def test_lars_is_the_papers(size, adapt):
    [w], generator = parameters((size,), torch.float64)
    kwargs = {"lr": 0.2, "momentum": 0.8, "weight_decay": 0.1}
    optimizer = ours.LARS([w], **kwargs, trust_coefficient=0.02, layer_adaptation=adapt)
    expected, v = w.detach().numpy().copy(), np.zeros(size)
    for _ in range(5):
        w.grad = torch.randn(size, dtype=torch.float64, generator=generator)
        expected, v = textbook_lars(expected, w.grad.numpy(), v, **kwargs, trust=0.02, adapt=adapt)
        optimizer.step()
        np.testing.assert_allclose(w.detach().numpy(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("size", [1, 17, 40000])
def test_lamb_is_the_papers(size, adapt):
    [w], generator = parameters((size,), torch.float64)
    kwargs = {"lr": 0.2, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.1}
    optimizer = ours.LAMB([w], **kwargs, layer_adaptation=adapt)
    expected, m, v = w.detach().numpy().copy(), np.zeros(size), np.zeros(size)
    for t in range(1, 6):
        w.grad = torch.randn(size, dtype=torch.float64, generator=generator)
        expected, m, v = textbook_lamb(expected, w.grad.numpy(), m, v, t, **kwargs, adapt=adapt)
        optimizer.step()
        np.testing.assert_allclose(w.detach().numpy(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["LARS", "LAMB"])
def test_groups_may_be_left_out_of_the_adaptation(name):
    a, b = torch.full((4,), 2.0, requires_grad=True), torch.full((4,), 2.0, requires_grad=True)
    groups = [{"params": [a]}, {"params": [b], "layer_adaptation": False, "weight_decay": 0}]
    optimizer = getattr(ours, name)(groups, lr=0.1)
    a.grad, b.grad = torch.ones(4), torch.ones(4)
    optimizer.step()
    assert not torch.equal(a, b)
    torch.testing.assert_close(b.detach(), torch.full((4,), 1.9))


@pytest.mark.parametrize("name", ["LARS", "LAMB"])
def test_a_tensor_of_zeros_moves(name):
    w = torch.zeros(3, requires_grad=True)
    w.grad = torch.ones(3)
    getattr(ours, name)([w], lr=0.1).step()
    torch.testing.assert_close(w.detach(), torch.full((3,), -0.1))


# ---- SAM and accumulation --------------------------------------------------------------------


@pytest.mark.parametrize("classes", [torch.optim, ours], ids=["torch", "ours"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_sam_is_the_papers(classes, adaptive):
    [w], generator = parameters((5,), torch.float64)
    A = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    optimizer = ours.SAM(classes.SGD([w], lr=0.01, momentum=0.9), rho=0.1, adaptive=adaptive)
    expected, v = w.detach().numpy().copy(), 0.0
    H = (A.T @ A).numpy()

    def closure():
        optimizer.zero_grad()
        loss = (A @ w).square().sum() / 2
        loss.backward()
        return loss

    for _ in range(4):
        g, scale = H @ expected, np.abs(expected) if adaptive else 1.0
        worse = expected + 0.1 * scale * (scale * g) / np.linalg.norm(scale * g)
        v = 0.9 * v + H @ worse
        expected = expected - 0.01 * v
        optimizer.step(closure)
        np.testing.assert_allclose(w.detach().numpy(), expected, rtol=1e-11)


def test_sam_is_an_optimizer_around_one():
    w = torch.ones(3, requires_grad=True)
    base = ours.Adam([w], lr=0.1)
    optimizer = ours.SAM(base)
    assert optimizer.param_groups is base.param_groups and optimizer.state is base.state
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def closure():
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    schedule.step()
    assert base.param_groups[0]["lr"] == 0.05
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state is base.state and len(base.state) == 1
    copied = pickle.loads(pickle.dumps(optimizer))
    assert copied.rho == 0.05 and copied.param_groups is copied.base.param_groups
    optimizer.add_param_group({"params": [torch.ones(1, requires_grad=True)]})
    assert len(base.param_groups) == 2
    with pytest.raises(errors.InvalidArgument, match="closure=None"):
        optimizer.step()
    with pytest.raises(errors.InvalidType, match="optimizer="):
        ours.SAM([w])
    with pytest.raises(errors.InvalidArgument, match="rho=-1"):
        ours.SAM(base, rho=-1)


def test_sam_comes_back_when_the_closure_fails():
    w = torch.ones(3, requires_grad=True)
    optimizer = ours.SAM(ours.SGD([w], lr=0.1))
    calls = []

    def closure():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        w.grad = torch.ones(3)
        return w.sum()

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert w.tolist() == [1, 1, 1]


@pytest.mark.parametrize("classes", [torch.optim, ours], ids=["torch", "ours"])
def test_accumulation_is_exact_in_a_short_last_window(classes):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(23, 4, dtype=torch.float64, generator=generator)
    y = torch.randn(23, dtype=torch.float64, generator=generator)
    made = []
    for together in (True, False):
        w = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        optimizer = classes.SGD([w], lr=0.1, momentum=0.9)
        if together:
            for first in range(0, 23, 9):
                optimizer.zero_grad()
                (X[first : first + 9] @ w - y[first : first + 9]).square().mean().backward()
                optimizer.step()
        else:
            with ours.accumulate(optimizer, 3) as steps:
                for first in range(0, 23, 3):
                    part = slice(first, first + 3)
                    loss = (X[part] @ w - y[part]).square().mean()
                    steps.backward(loss, len(y[part]))
            assert steps.waiting == 0 and not steps.flush()
        made.append(w.detach())
    torch.testing.assert_close(made[0], made[1], rtol=1e-12, atol=1e-13)


def test_accumulation_refuses_bad_arguments():
    optimizer = ours.SGD([torch.ones(1, requires_grad=True)])
    with pytest.raises(errors.InvalidArgument, match="k=0"):
        ours.accumulate(optimizer, 0)
    with pytest.raises(errors.InvalidType, match="optimizer=3"):
        ours.accumulate(3, 2)
    with pytest.raises(errors.InvalidArgument, match="samples=0"):
        ours.accumulate(optimizer, 2).backward(torch.ones(()), 0)


# ---- Whole trainings -------------------------------------------------------------------------


class Transformer(torch.nn.Module):
    """A small one over sequences of 8 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 16)
        self.block = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.out = torch.nn.Linear(16, 3)

    def forward(self, x):
        return self.out(self.block(self.embedding(x)).mean(1))


def convolutions() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 3),
    )


@pytest.fixture
def one_thread():
    """One thread for torch: several wait longer for each other than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("name", "kwargs"), KINDS)
@pytest.mark.parametrize("network", [convolutions, Transformer], ids=["cnn", "transformer"])
def test_networks_train_to_the_same_loss(network, name, kwargs):
    curves = []
    for classes in (torch.optim, ours):
        torch.manual_seed(0)
        model = network()
        shape = (64, 1, 8, 8) if network is convolutions else (64, 8)
        X = torch.randn(shape) if network is convolutions else torch.randint(11, shape)
        y = torch.randint(3, (64,))
        optimizer = getattr(classes, name)(model.parameters(), **{"lr": 0.02} | kwargs)
        curve = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(X), y)
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        curves.append(curve)
    np.testing.assert_allclose(curves[0], curves[1], rtol=2e-3, atol=2e-3)
    assert curves[1][-1] < 0.9 * curves[1][0]
