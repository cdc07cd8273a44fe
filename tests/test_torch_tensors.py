"""The optimizers of schuss.torch on tensors of every kind, and steps that are refused."""

from __future__ import annotations

import math
import threading
import time
import warnings

import pytest

pytest.importorskip("torch")
pytest.importorskip("schuss._native")
import torch

import schuss.torch as ours
from schuss import errors
from schuss.torch import batches
from schuss.torch.tensors import tables

KINDS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("Adam", {"amsgrad": True}),
    ("Adagrad", {"lr_decay": 0.1}),
    ("LAMB", {}),
]


class MyParameter(torch.nn.Parameter):
    """Of a class of one's own, which means nothing to numbers in memory."""


class Dispatched(torch.Tensor):
    """A tensor that is more than numbers in memory."""

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return NotImplemented


# ---- How numbers lie -------------------------------------------------------------------------


def test_parameters_of_a_subclass():
    w = MyParameter(torch.ones(3))
    w.grad = torch.ones(3)
    ours.SGD([w], lr=0.25).step()
    assert w.tolist() == [0.75] * 3


def test_conjugated_gradients_of_many_parameters():
    params = [torch.zeros(500, dtype=torch.cfloat, requires_grad=True) for _ in range(4)]
    for k, p in enumerate(params):
        p.grad = torch.full((500,), complex(k + 1, 1), dtype=p.dtype).conj()
    ours.SGD(params, lr=1.0).step()
    for k, p in enumerate(params):
        assert bool((p == complex(-k - 1, 1)).all())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("lying", ["conjugated", "negated"])
def test_parameters_that_lie_conjugated_or_negated(lying, momentum):
    made = []
    for classes in (torch.optim, ours):
        numbers = torch.tensor([1 + 2j, 3 + 4j]).conj()
        p = numbers if lying == "conjugated" else numbers.imag
        assert p.is_conj() or p.is_neg()
        p = p.detach().requires_grad_()
        optimizer = classes.SGD([p], lr=0.1, momentum=momentum)
        for _ in range(3):
            p.grad = torch.ones(2, dtype=p.dtype)
            optimizer.step()
        made.append(p.detach().resolve_conj().resolve_neg())
    torch.testing.assert_close(made[0], made[1])


def test_gradients_that_are_zero_by_definition():
    p = torch.ones(3, requires_grad=True)
    p.grad = torch._efficientzerotensor(3)
    ours.SGD([p], lr=0.1, weight_decay=1.0).step()
    torch.testing.assert_close(p.detach(), torch.full((3,), 0.9))


def test_batches_of_tensors_whose_numbers_lie_otherwise():
    conjugated = (torch.ones(4, dtype=torch.cfloat) * 1j).conj()
    assert next(iter(batches(conjugated, batch_size=2)))[0].tolist() == [-1j, -1j]
    assert next(iter(batches(torch._neg_view(torch.ones(4)), batch_size=2)))[0].tolist() == [-1, -1]
    assert next(iter(batches(torch._efficientzerotensor(4), batch_size=2)))[0].tolist() == [0, 0]
    weight = torch.ones(4, dtype=torch.bfloat16)
    made = batches(torch.ones(4), batch_size=2, order="weighted", sample_weight=weight)
    assert len(list(made)) == 2
    for epoch in (1.5, "a", -1):
        with pytest.raises((TypeError, ValueError), match="epoch"):
            made.epoch = epoch


@pytest.mark.threads
def test_tensors_outlive_the_step_that_works_on_them():
    p = torch.ones(4_000_000, requires_grad=True)
    optimizer = ours.Adam([p], lr=1e-3)

    def disturb():
        for _ in range(30):
            p.grad = torch.ones_like(p)
            optimizer.state.pop(p, None)
            time.sleep(0.001)

    thread = threading.Thread(target=disturb)
    p.grad = torch.ones_like(p)
    thread.start()
    while thread.is_alive():
        optimizer.step()
    thread.join()
    assert bool(p.isfinite().all())


# ---- Steps that are refused ------------------------------------------------------------------


@pytest.mark.parametrize("what", ["state", "gradient"])
def test_tensors_of_another_shape_and_as_many_numbers(what):
    p = torch.ones(2, 3, requires_grad=True)
    optimizer = ours.SGD([p], lr=0.1, momentum=0.9)
    p.grad = torch.ones(2, 3)
    optimizer.step()
    if what == "state":
        state = optimizer.state_dict()
        state["state"][0]["momentum_buffer"] = torch.ones(3, 2)
        optimizer.load_state_dict(state)
    else:
        p.data = torch.ones(3, 2)
    with pytest.raises(errors.TensorError, match=r"shape \((3, 2|2, 3)\); expected"):
        optimizer.step()


@pytest.mark.parametrize(("name", "kwargs"), KINDS)
def test_a_refused_step_leaves_no_memory(name, kwargs):
    p, q = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    optimizer = getattr(ours, name)([{"params": [p]}, {"params": [q]}], **kwargs)
    before = len(optimizer.state)
    p.grad, q.grad = torch.ones(3), torch.ones(3)
    q.data = torch.ones(4)
    with pytest.raises(errors.TensorError, match="shape"):
        optimizer.step()
    assert p.tolist() == [1, 1, 1] and len(optimizer.state) == before and p._version == 0
    q.grad = None
    optimizer.step()
    reference = torch.ones(3, requires_grad=True)
    reference.grad = torch.ones(3)
    getattr(ours, name)([reference], **kwargs).step()
    assert torch.equal(p, reference)


def test_parameters_that_overlap_themselves():
    p, q = torch.ones(3, requires_grad=True), torch.ones(1).expand(3).detach().requires_grad_()
    p.grad, q.grad = torch.ones(3), torch.ones(3)
    with pytest.raises(errors.TensorError, match=r"params\[1\].*one place"):
        ours.Adam([p, q]).step()
    assert p.tolist() == [1, 1, 1]


def test_tensors_of_classes_that_are_more_than_numbers():
    own = torch.ones(2).as_subclass(Dispatched)
    columns = [[torch.ones(2), own], [torch.ones(2), torch.ones(2)]]
    with pytest.raises(errors.InvalidType, match=r"the parameter of params\[1\].*Dispatched"):
        tables(columns, ("the parameter", "the gradient"))


def test_bad_groups():
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(errors.InvalidArgument, match="did you mean 'layer_adaptation'"):
        ours.LARS([{"params": [w], "layer_adaptaton": False}])
    with pytest.raises(errors.InvalidArgument, match="for all groups together"):
        ours.SGD([{"params": [w], "max_grad_norm": 1.0}])
    with pytest.raises(errors.InvalidArgument, match="momentum"):
        ours.LARS([{"params": [w], "momentum": 5}])
    with pytest.raises(errors.InvalidArgument, match="1-element"):
        ours.LAMB([w], lr=torch.ones(2))
    optimizer = ours.SGD([{"params": [w], "name": "mine"}])
    assert optimizer.param_groups[0]["name"] == "mine"
    for divisor in (0, -1, math.nan):
        with pytest.raises(errors.InvalidArgument, match="divisor"):
            optimizer.step(divisor=divisor)


def test_bad_states():
    w = torch.ones(2, requires_grad=True)
    w.grad = torch.ones(2)
    adam = ours.Adam([w])
    adam.step()
    adam.state[w]["step"] = 7
    with pytest.raises(errors.TensorError, match=r"step of params\[0\]"):
        adam.step()
    z = torch.ones(1, dtype=torch.cfloat, requires_grad=True)
    z.grad = torch.ones_like(z)
    with pytest.raises(RuntimeError, match="complex"):
        ours.SGD([z], fused=True).step()


# ---- torch's ways ----------------------------------------------------------------------------


def test_clipping_spreads_a_norm_that_is_no_number():
    p, q = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    p.grad, q.grad = torch.tensor([math.nan, 1.0]), torch.ones(2)
    ours.SGD([p, q], max_grad_norm=1.0).step()
    assert bool(p.isnan().all()) and bool(q.isnan().all())


@pytest.mark.parametrize("name", ["Adam", "AdamW", "Adagrad"])
def test_a_tensor_as_learning_rate_rounds_as_torchs(name):
    made = []
    for classes in (torch.optim, ours):
        w = torch.linspace(-1, 1, 30, dtype=torch.float64).requires_grad_()
        optimizer = getattr(classes, name)([w], lr=torch.tensor(0.1))
        for k in range(3):
            w.grad = torch.linspace(-1, 2, 30, dtype=torch.float64) + k
            optimizer.step()
        made.append(w.detach())
    torch.testing.assert_close(made[0], made[1], rtol=1e-14, atol=1e-15)


def test_a_grad_scaler_with_differentiable_steps():
    w = torch.ones(2, requires_grad=True)
    optimizer = ours.SGD([w], lr=0.5, differentiable=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(()))
    w.grad = torch.full((2,), 8.0)
    with pytest.raises(RuntimeError, match="leaf"):  # torch's as well: it follows the step
        scaler.step(optimizer)
    with pytest.raises(errors.InvalidArgument, match="max_grad_norm=None"):
        ours.SGD([w], differentiable=True, max_grad_norm=1.0)
    with pytest.raises(errors.InvalidArgument, match="differentiable"):
        ours.accumulate(optimizer, 2)


def test_sparse_gradients_of_a_group_added_later():
    w, late = torch.ones(2, requires_grad=True), torch.ones(3, requires_grad=True)
    optimizer = ours.Adagrad([w], lr=0.1)
    optimizer.add_param_group({"params": [late]})
    late.grad = torch.tensor([0.0, 2.0, 0.0]).to_sparse()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.step()
    torch.testing.assert_close(late.detach(), torch.tensor([1.0, 0.9, 1.0]))


def test_lars_does_not_adapt_to_a_gradient_of_zeros():
    w = torch.ones(3, requires_grad=True)
    w.grad = torch.zeros(3)
    ours.LARS([w], lr=0.5, weight_decay=0.5).step()
    torch.testing.assert_close(w.detach(), torch.full((3,), 0.75))


# ---- SAM and accumulation --------------------------------------------------------------------


@pytest.mark.parametrize("classes", [torch.optim, ours], ids=["torch", "ours"])
@pytest.mark.parametrize("infinite", [False, True])
def test_sam_with_a_grad_scaler(classes, infinite):
    w = torch.ones(2, requires_grad=True)
    optimizer = ours.SAM(classes.SGD([w], lr=0.25), rho=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(w.square().sum()).backward()
    optimizer.first_step(zero_grad=True)
    scaler.scale(w.square().sum()).backward()
    if infinite:
        w.grad[0] = math.inf
    scaler.step(optimizer)
    scaler.update()
    expected = 1.0 if infinite else 1 - 0.5 * (1 + 0.1 / math.sqrt(2))
    torch.testing.assert_close(w.detach(), torch.full((2,), expected))


def test_sam_takes_its_steps_in_turn():
    w = torch.ones(2, requires_grad=True)
    optimizer = ours.SAM(ours.SGD([w], lr=0.1))
    with pytest.raises(errors.InvalidArgument, match="second_step"):
        optimizer.second_step()
    w.grad = torch.ones(2)
    optimizer.first_step()
    with pytest.raises(errors.InvalidArgument, match="first_step"):
        optimizer.first_step()
    optimizer.second_step()
    torch.testing.assert_close(w.detach(), torch.full((2,), 0.9))
    for unfit in (optimizer, torch.optim.LBFGS([w])):
        with pytest.raises(errors.InvalidType, match="closure"):
            ours.accumulate(unfit, 2)
        with pytest.raises(errors.InvalidType, match="closure"):
            ours.SAM(unfit)


def test_accumulation_drops_what_stood_before_and_what_an_error_leaves():
    w = torch.zeros(1, requires_grad=True)
    w.grad = torch.full((1,), 100.0)
    steps = ours.accumulate(ours.SGD([w], lr=1.0), 2)
    for _ in range(2):
        steps.backward(w.sum(), 8)
    assert w.item() == -1
    with pytest.raises(KeyError), steps:
        steps.backward(w.sum())
        raise KeyError
    assert steps.waiting == 0 and w.grad is None and w.item() == -1


@pytest.mark.parametrize("classes", [torch.optim, ours], ids=["torch", "ours"])
@pytest.mark.parametrize("infinite", [False, True])
def test_accumulation_with_a_grad_scaler(classes, infinite):
    w = torch.zeros(1, requires_grad=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with ours.accumulate(classes.SGD([w], lr=1.0), 2, scaler=scaler) as steps:
        for k, samples in enumerate((4, 8)):
            factor = math.inf if infinite and k else 1.0
            steps.backward(w.sum() * factor, samples)
    assert w.item() == (0.0 if infinite else -1.0)
    assert scaler.get_scale() == (512.0 if infinite else 1024.0)
