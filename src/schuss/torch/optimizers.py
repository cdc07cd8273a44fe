"""Optimizers of torch.optim whose step is one pass over all tensors.

The classes are torch's own, down to their checks, groups and state; what is replaced is ``step``.
LARS and LAMB, which torch does not have, are made in their image.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.optim import adagrad as torch_adagrad
from torch.optim import sgd as torch_sgd
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from schuss import _native
from schuss.checks import check_flags, with_near_names
from schuss.errors import InvalidArgument, InvalidType, SchussError, TensorError
from schuss.formulas.spec import check_number
from schuss.torch.tensors import Table, describe, survey, tables, write_back

__all__ = ["LAMB", "LARS", "SGD", "Adagrad", "Adam", "AdamW", "Fused"]

UPDATES = {name: number for number, name in enumerate(_native.updates())}
# What a step is made of, in the order of StepConstants in csrc/optimizers.h.
NUMBERS = (
    "factor", "decay", "shrink", "rate", "first", "second", "third", "first_scale", "root_scale",
    "eps", "trust", "ratio",
)  # fmt: skip
LAYOUT = operator.attrgetter("layout")
COUNTED = (0, 1)  # types of counters that the extension counts in: float32, float64
# Below so many numbers for each, another thread costs more than it saves.
NUMBERS_PER_THREAD = 1 << 16


Pairs = list[tuple[torch.Tensor, torch.Tensor]]


def counters_of(states: list[dict[str, Any]]) -> Any:
    """The numbers of steps that parameters have made, as their states keep them."""
    steps = [state["step"] for state in states]
    addresses, sizes, _, kind = describe([steps])
    if kind in COUNTED and (sizes == 1).all():
        return _native.StepCounters(kind, addresses, steps)
    for place, step in enumerate(steps):
        if not isinstance(step, torch.Tensor) or step.numel() != 1:
            raise TensorError(
                f"step of params[{place}]: expected a tensor of one number, got {step!r}."
            )
    return OddCounters(steps)


@dataclass
class OddCounters:
    """Such as the extension does not count in."""

    steps: list[torch.Tensor]

    def count_up(self) -> np.ndarray:
        """Add 1 to each and return what they are then."""
        for step in self.steps:
            step += 1
        return np.array([float(step) for step in self.steps])


@dataclass
class _Work:
    """One group's parameters that have gradients, and what is remembered of each."""

    group: dict[str, Any]
    params: list[torch.Tensor]
    fresh: np.ndarray | bool  # whether the memory was made in this step; of each, or of all
    counters: Any
    tables: list[Table]
    sparse: Sequence[tuple[torch.Tensor, torch.Tensor]] = ()  # with their gradients


def observable(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step around which torch's hooks run, which profilers see and ``torch.compile`` does not.

    In place of torch's own wrapper, whose profiler's record is made also where nobody looks: after
    a pass over more memory than the caches hold, each line of code and data that a step touches is
    a wait for memory.
    """
    observed = torch._disable_dynamo(torch.optim.Optimizer.profile_hook_step(step))

    @functools.wraps(step)
    def wrapper(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        if (
            torch.compiler.is_dynamo_compiling()
            or self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or torch.autograd._profiler_enabled()
        ):
            return observed(self, *args, **kwargs)
        return step(self, *args, **kwargs)

    wrapper.hooked = True  # type: ignore[attr-defined]  # for torch, which would put its own around
    return wrapper


class Fused(torch.optim.Optimizer):
    """What the optimizers share: collect the tensors, pass over them, leave all as torch would."""

    _step_supports_amp_scaling = True
    _counts: ClassVar[bool] = True  # whether the state has "step"
    grad_norm: float | None = None

    def _prepare(self, max_grad_norm: float | None, stochastic_rounding: bool) -> None:
        """Check and keep what torch's classes do not have."""
        if max_grad_norm is not None:
            max_grad_norm = check_number("max_grad_norm", max_grad_norm, {">": 0})
        check_flags(stochastic_rounding=stochastic_rounding)
        self.max_grad_norm = max_grad_norm
        self.stochastic_rounding = stochastic_rounding
        if any(group.get("differentiable") for group in self.param_groups):
            self._step_supports_amp_scaling = False  # torch's own step does not
            if max_grad_norm is not None or stochastic_rounding:
                raise InvalidArgument(
                    "differentiable=True makes torch's own step: expected max_grad_norm=None and "
                    "stochastic_rounding=False."
                )
        ignored = [name for name in ("foreach", "capturable") if self.defaults.get(name)]
        if ignored:
            warnings.warn(
                f"{type(self).__name__}: {' and '.join(ignored)} ignored: every step is one pass "
                "over all tensors, on the CPU.",
                UserWarning,
                stacklevel=3,
            )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own, as torch does."""
        if isinstance(param_group, dict):
            check_names(param_group, self.defaults)
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
        except SchussError:
            self.param_groups.pop()
            raise

    def _check_group(self, group: dict[str, Any]) -> None:
        """Raise for parameters on other devices, and options that torch does not check."""
        for place, param in enumerate(group["params"]):
            if param.device.type not in ("cpu", "meta"):
                raise TensorError(
                    f"params[{place}]: lies on {param.device}; expected tensors on the CPU."
                )

    def __getstate__(self) -> dict[str, Any]:
        own = {name: self.__dict__.get(name) for name in ("max_grad_norm", "stochastic_rounding")}
        return super().__getstate__() | own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.setdefault("max_grad_norm", None)
        self.__dict__.setdefault("stochastic_rounding", False)
        super().__setstate__(state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict`` of this class or of torch's; its tensors are copied."""
        copies = {
            key: {name: v.clone() if isinstance(v, torch.Tensor) else v for name, v in one.items()}
            if isinstance(one, dict)
            else one
            for key, one in state_dict["state"].items()
        }
        super().load_state_dict({**state_dict, "state": copies})

    # ---- The step ----

    @observable
    def step(self, closure: Callable[[], Any] | None = None, *, divisor: float = 1.0) -> Any:
        """Make one step.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and its gradients anew, and returns the loss.
        divisor : float, default=1.0
            What the gradients are divided by: the samples that a sum of gradients is of.

        Returns
        -------
        loss
            What the closure returned; None without one.

        Raises
        ------
        schuss.errors.SchussError
            For tensors that no kernel can take; nothing has changed then.
        """
        if divisor != 1:
            divisor = check_number("divisor", divisor, {">": 0})
        for group in self.param_groups:
            if group.get("differentiable"):
                return self._step_of_torch(closure, divisor)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        if found_inf is None or not float(found_inf):
            self._step(divisor)
        return loss

    def _step_of_torch(self, closure: Callable[[], Any] | None, divisor: float) -> Any:
        """Torch's own, which autograd can follow; without its hooks, which run around ours."""
        if divisor != 1:
            raise InvalidArgument(f"divisor={divisor}: expected 1 with differentiable=True.")
        step = next(
            cls.__dict__["step"]
            for cls in type(self).__mro__
            if cls.__module__.startswith("torch.optim") and "step" in cls.__dict__
        )
        return getattr(step, "__wrapped__", step)(self, closure)

    def _step(self, divisor: float) -> None:
        begun: list[tuple[torch.Tensor, list[str]]] = []
        try:
            walk = _native.StateWalk(self.state)
            work = [self._survey(group, walk, begun) for group in self.param_groups]
        except Exception:
            for param, names in begun:
                self._forget(param, names)
            raise
        factor = self._factor(work, divisor)
        for one in work:
            self._advance(one, factor)

    def _survey(
        self,
        group: dict[str, Any],
        walk: Any,
        begun: list[tuple[torch.Tensor, list[str]]],
    ) -> _Work:
        """The group's tensors, all checked."""
        params, names = group["params"], self._slots(group)
        keys = (*names, "step") if self._counts else names
        found = survey(params, walk, keys, self._counts)
        if found is None:
            return self._collect(group, begun)
        return _Work(group, params, False, found[1], [Table(found[0])])

    @torch.no_grad()
    def _collect(self, group: dict[str, Any], begun: list[tuple[torch.Tensor, list[str]]]) -> _Work:
        """The group's tensors, all checked; memory is made where there is none yet.

        What is made, ``begun`` says.
        """
        params, grads, sparse = self._with_gradients(group["params"])
        names = self._slots(group)
        if group.get("fused") and any(map(torch.is_complex, params)):
            raise TensorError(
                "`fused=True` requires all the params to be floating point Tensors, got a complex "
                "one; without it, those are taken as well."
            )
        states = [self.state[p] for p in params] if names else []
        fresh = np.zeros(len(params), bool)
        slots = [[state.get(name) for state in states] for name in names]
        if any(tensor is None for column in slots for tensor in column):
            for k, (p, state) in enumerate(zip(params, states, strict=True)):
                if any(state.get(name) is None for name in names):
                    fresh[k] = True
                    begun.append((p, [name for name in names if state.get(name) is None]))
                    self._begin(group, p, state)
            slots = [[state[name] for state in states] for name in names]
        columns = [params, grads, *slots]
        try:
            made = tables(columns, ("the parameter", "the gradient", *names)) if params else []
        except TensorError as error:
            if not group.get("fused"):
                raise
            accepted = (
                "`fused=True` requires all the params to be floating point Tensors on the CPU"
            )
            raise TensorError(f"{accepted}: {error}") from None
        counters = counters_of(states) if self._counts else None
        return _Work(group, params, fresh, counters, made, sparse)

    def _with_gradients(
        self, params: list[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], Pairs]:
        """Parameters that have dense gradients, those, and the pairs whose gradient is sparse."""
        grads: list[Any] = [p.grad for p in params]
        if type(None) not in map(type, grads) and set(map(LAYOUT, grads)) <= {torch.strided}:
            return params, grads, []
        # Pairs are made only where they are needed: many of them rouse the garbage collector.
        pairs = [(p, g) for p, g in zip(params, grads, strict=True) if g is not None]
        sparse = [(p, g) for p, g in pairs if g.layout != torch.strided]
        if sparse:
            self._check_sparse(sparse)
        dense = [(p, g) for p, g in pairs if g.layout == torch.strided]
        return [p for p, _ in dense], [g for _, g in dense], sparse

    def _factor(self, work: list[_Work], divisor: float) -> float:
        """What gradients are multiplied by: the scaler's factor, and that of clipping."""
        scale = getattr(self, "grad_scale", None)
        factor = 1.0 / (divisor if scale is None else divisor * float(scale))
        if self.max_grad_norm is None:
            return factor
        dense = [t.lying.squared_norm(crew(t)) for one in work for t in one.tables]
        values = [g.coalesce().values().double() for one in work for _, g in one.sparse]
        total = math.fsum(dense) + math.fsum(float(v.square().sum()) for v in values)
        self.grad_norm = math.sqrt(total) * factor
        limit = self.max_grad_norm / (self.grad_norm + 1e-6)
        return factor if limit >= 1 else factor * limit  # a norm that is no number spreads

    def _advance(self, work: _Work, factor: float) -> None:
        """Update a group's parameters and what is remembered of them."""
        group = work.group
        if group["maximize"]:
            factor = -factor
        steps = work.fresh if work.counters is None else work.counters.count_up()
        different, which = alike(steps)
        numbers = [{"factor": factor, **self._numbers(group, step)} for step in different]
        rows = [[row.get(name, 0.0) for name in NUMBERS] for row in numbers]
        kind = UPDATES[self._update(group)]
        # Autograd finds out by these counters that what it has kept is no longer true.
        torch.autograd.graph.increment_version(work.params)
        for table in work.tables:
            lying = table.lying
            rounded = self.stochastic_rounding and lying.dtype in ("bfloat16", "float16")
            draw = int(torch.randint(1 << 32, (), device="cpu")) if rounded else None
            own = which if which is None or table.places is None else which[table.places]
            lying.optimize(kind, rows, own, draw, crew(table))
            write_back(table)
        for p, g in work.sparse:
            self._advance_sparse(group, p, g if factor in (1, -1) else g * abs(factor))

    # ---- What each optimizer is ----

    def _slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Names of the tensors that the state of a parameter has beside "step"."""
        raise NotImplementedError

    def _update(self, group: dict[str, Any]) -> str:
        """Name of the update in csrc/optimizers.h."""
        raise NotImplementedError

    def _numbers(self, group: dict[str, Any], step: Any) -> dict[str, float]:
        """What a step is made of; ``step`` counts from 1, or says whether the memory is new."""
        raise NotImplementedError

    def _begin(self, group: dict[str, Any], param: torch.Tensor, state: dict[str, Any]) -> None:
        """Make the state of a parameter."""
        if self._counts and "step" not in state:
            wide = torch.get_default_dtype() == torch.float64 and not group.get("fused")
            dtype = torch.float64 if wide else torch.float32
            state["step"] = torch.zeros((), dtype=dtype, device="cpu")
        for name in self._slots(group):
            if state.get(name) is None:
                state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)

    def _forget(self, param: torch.Tensor, names: list[str]) -> None:
        """Undo :meth:`_begin`, where a step is refused that had begun."""
        state = self.state[param]
        for name in names:
            state.pop(name, None)
        if state.keys() <= {"step"}:
            del self.state[param]

    def _check_sparse(self, sparse: Pairs) -> None:
        """Refuse gradients that are not dense, as most optimizers do."""
        raise TensorError(
            f"{type(self).__name__} does not support sparse gradients; got one of layout "
            f"{sparse[0][1].layout}. schuss.torch.SGD and Adagrad take torch.sparse_coo."
        )

    def _advance_sparse(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        raise NotImplementedError


def crew(table: Table) -> int:
    """Threads that pay for a pass over the tensors: at most as many as torch uses."""
    return max(1, min(torch.get_num_threads(), table.lying.numbers // NUMBERS_PER_THREAD))


def alike(numbers: np.ndarray | float) -> tuple[list[Any], np.ndarray | None]:
    """The different ones, and which of these each is; None: all are the one."""
    if not isinstance(numbers, np.ndarray):
        return [numbers], None
    different, which = np.unique(numbers, return_inverse=True)
    return different.tolist(), which.astype(np.int32)


class SGD(Fused, torch.optim.SGD):
    r"""Stochastic gradient descent, as ``torch.optim.SGD``.

    .. math:: v \leftarrow \mu v + (1 - \tau) g, \qquad w \leftarrow w - \eta v

    Parameters
    ----------
    params, lr, momentum, dampening, weight_decay, nesterov, maximize, differentiable
        As in ``torch.optim.SGD``. With ``differentiable`` torch's own step is made.
    foreach, fused
        Accepted; every step is fused.
    max_grad_norm : float, optional
        Largest norm of the gradients of all groups together; larger ones are scaled to it as
        ``torch.nn.utils.clip_grad_norm_`` does, without another pass that writes.
    stochastic_rounding : bool, default=False
        Round what is kept in 16 bits up or down at random, by torch's generator, so that small
        steps are not lost.

    Attributes
    ----------
    grad_norm : float or None
        Norm of the last step's gradients before clipping, where ``max_grad_norm`` is given.

    References
    ----------
    I. Sutskever et al., On the importance of initialization and momentum, ICML 2013.

    Examples
    --------
    >>> import torch
    >>> from schuss.torch import SGD
    >>> w = torch.ones(3, requires_grad=True)
    >>> optimizer = SGD([w], lr=0.5, momentum=0.9)
    >>> w.square().sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0., 0., 0.], requires_grad=True)
    """

    _counts = False

    @with_near_names
    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | torch.Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        max_grad_norm: float | None = None,
        stochastic_rounding: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            momentum,
            dampening,
            weight_decay,
            nesterov,
            maximize=maximize,
            foreach=foreach,
            differentiable=differentiable,
            fused=fused,
        )
        self._prepare(max_grad_norm, stochastic_rounding)

    def _slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def _update(self, group: dict[str, Any]) -> str:
        return "momentum" if group["momentum"] else "plain"

    def _numbers(self, group: dict[str, Any], step: Any) -> dict[str, float]:
        momentum = float(group["momentum"])
        return {
            "decay": float(group["weight_decay"]),
            "rate": -float(group["lr"]),
            "first": 0.0 if step else momentum,
            "second": 1.0 if step else 1 - float(group["dampening"]),
            "third": momentum if group["nesterov"] else 0.0,
        }

    def _check_sparse(self, sparse: Pairs) -> None:
        if {g.layout for _, g in sparse} != {torch.sparse_coo}:
            super()._check_sparse(sparse)

    @torch.no_grad()
    def _advance_sparse(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        buffers = [self.state[p].get("momentum_buffer")] if group["momentum"] else [None]
        options = {name: group[name] for name in torch_options(torch_sgd.sgd)}
        torch_sgd.sgd([p], [g], buffers, **options, foreach=False, fused=False)
        if group["momentum"]:
            self.state[p]["momentum_buffer"] = buffers[0]


def torch_options(function: Callable[..., Any]) -> list[str]:
    """Names of the options of a group that torch's function of an optimizer takes."""
    return [
        name
        for name, one in inspect.signature(function).parameters.items()
        if one.kind is one.KEYWORD_ONLY
    ]


class _Moments(Fused):
    """Adam and AdamW."""

    def _slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        largest = ("max_exp_avg_sq",) if group["amsgrad"] else ()
        return ("exp_avg", "exp_avg_sq", *largest)

    def _update(self, group: dict[str, Any]) -> str:
        return "largest_moments" if group["amsgrad"] else "moments"

    def _numbers(self, group: dict[str, Any], step: Any) -> dict[str, float]:
        lr, decay = scalar(group["lr"]), float(group["weight_decay"])
        decoupled = group["decoupled_weight_decay"]
        made = moments(group, step)
        return {
            **made,
            "decay": 0.0 if decoupled else decay,
            "shrink": float(1 - lr * decay) if decoupled else 1.0,
            "rate": -float(lr / made["first_scale"]),
        }


def scalar(number: Any) -> Any:
    """A learning rate; of a tensor, arithmetic is rounded to its dtype, as torch rounds it."""
    return number.detach().reshape(()) if isinstance(number, torch.Tensor) else number


def moments(group: dict[str, Any], step: float) -> dict[str, float]:
    """What the running moments are made of; first_scale is the bias of the first."""
    beta1, beta2 = (float(beta) for beta in group["betas"])
    return {
        "first": 1 - beta1,
        "second": beta2,
        "third": 1 - beta2,
        "first_scale": 1 - beta1**step,
        "root_scale": (1 - beta2**step) ** 0.5,
        "eps": float(group["eps"]),
    }


class Adam(_Moments, torch.optim.Adam):
    r"""Adam, as ``torch.optim.Adam``.

    .. math::
        m \leftarrow \beta_1 m + (1-\beta_1) g, \quad v \leftarrow \beta_2 v + (1-\beta_2) g^2,
        \quad w \leftarrow w - \eta\, \hat m / (\sqrt{\hat v} + \epsilon)

    Parameters
    ----------
    params, lr, betas, eps, weight_decay, amsgrad, maximize, differentiable, decoupled_weight_decay
        As in ``torch.optim.Adam``. With ``differentiable`` torch's own step is made.
    foreach, capturable, fused
        Accepted; every step is fused.
    max_grad_norm, stochastic_rounding
        As of :class:`SGD`.

    Attributes
    ----------
    grad_norm : float or None
        As of :class:`SGD`.

    References
    ----------
    D. P. Kingma, J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015.

    S. J. Reddi, S. Kale, S. Kumar, On the Convergence of Adam and Beyond, ICLR 2018 (amsgrad).

    Examples
    --------
    >>> import torch
    >>> from schuss.torch import Adam
    >>> w = torch.ones(2, requires_grad=True)
    >>> optimizer = Adam([w], lr=0.1)
    >>> w.square().sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.9000, 0.9000], requires_grad=True)
    """

    @with_near_names
    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float | torch.Tensor, float | torch.Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        max_grad_norm: float | None = None,
        stochastic_rounding: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=decoupled_weight_decay,
        )
        self._prepare(max_grad_norm, stochastic_rounding)


class AdamW(_Moments, torch.optim.AdamW):
    r"""Adam with decoupled weight decay, as ``torch.optim.AdamW``.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay, amsgrad, maximize, differentiable
        As in ``torch.optim.AdamW``. With ``differentiable`` torch's own step is made.
    foreach, capturable, fused
        Accepted; every step is fused.
    max_grad_norm, stochastic_rounding
        As of :class:`SGD`.

    Attributes
    ----------
    grad_norm : float or None
        As of :class:`SGD`.

    References
    ----------
    I. Loshchilov, F. Hutter, Decoupled Weight Decay Regularization, ICLR 2019.

    Examples
    --------
    >>> import torch
    >>> from schuss.torch import AdamW
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = AdamW(model.parameters(), lr=1e-3, max_grad_norm=1.0)
    >>> model(torch.ones(4, 3)).sum().backward()
    >>> optimizer.step()
    >>> optimizer.grad_norm
    8.0
    """

    @with_near_names
    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float | torch.Tensor, float | torch.Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        max_grad_norm: float | None = None,
        stochastic_rounding: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
        )
        self._prepare(max_grad_norm, stochastic_rounding)


class Adagrad(Fused, torch.optim.Adagrad):
    r"""AdaGrad, as ``torch.optim.Adagrad``.

    .. math:: s \leftarrow s + g^2, \qquad w \leftarrow w - \eta_t\, g / (\sqrt{s} + \epsilon)

    Parameters
    ----------
    params, lr, lr_decay, weight_decay, initial_accumulator_value, eps, maximize, differentiable
        As in ``torch.optim.Adagrad``. With ``differentiable`` torch's own step is made.
    foreach, fused
        Accepted; every step is fused.
    max_grad_norm, stochastic_rounding
        As of :class:`SGD`.

    Attributes
    ----------
    grad_norm : float or None
        As of :class:`SGD`.

    References
    ----------
    J. Duchi, E. Hazan, Y. Singer, Adaptive Subgradient Methods, JMLR 12 (2011).

    Examples
    --------
    >>> import torch
    >>> from schuss.torch import Adagrad
    >>> w = torch.ones(2, requires_grad=True)
    >>> optimizer = Adagrad([w], lr=0.25)
    >>> w.square().sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.7500, 0.7500], requires_grad=True)
    """

    @with_near_names
    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        max_grad_norm: float | None = None,
        stochastic_rounding: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            lr_decay,
            weight_decay,
            initial_accumulator_value,
            eps,
            foreach,
            maximize=maximize,
            differentiable=differentiable,
            fused=fused,
        )
        self._prepare(max_grad_norm, stochastic_rounding)

    def _slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("sum",)

    def _update(self, group: dict[str, Any]) -> str:
        return "squares"

    def _numbers(self, group: dict[str, Any], step: Any) -> dict[str, float]:
        return {
            "decay": float(group["weight_decay"]),
            "rate": -float(scalar(group["lr"]) / (1 + (step - 1) * float(group["lr_decay"]))),
            "eps": float(group["eps"]),
        }

    def _begin(self, group: dict[str, Any], param: torch.Tensor, state: dict[str, Any]) -> None:
        super()._begin(group, param, state)
        start = group["initial_accumulator_value"]
        state["sum"].fill_(complex(start, start) if param.is_complex() else start)

    def _check_sparse(self, sparse: Pairs) -> None:
        if {g.layout for _, g in sparse} != {torch.sparse_coo}:
            super()._check_sparse(sparse)

    @torch.no_grad()
    def _advance_sparse(self, group: dict[str, Any], p: torch.Tensor, g: torch.Tensor) -> None:
        state = self.state[p]
        if state.get("sum") is None:
            self._begin(group, p, state)
        options = {name: group[name] for name in torch_options(torch_adagrad.adagrad)}
        torch_adagrad.adagrad(
            [p], [g], [state["sum"]], [state["step"]], **options, has_sparse_grad=True,
            foreach=False, fused=False,
        )  # fmt: skip


def check_all(kind: str, **values: tuple[Any, dict[str, float]]) -> None:
    """Check numbers of an optimizer against their limits."""
    for name, (value, limits) in values.items():
        if isinstance(value, torch.Tensor):
            if value.numel() != 1:
                raise InvalidArgument(f"{kind}: Tensor {name} must be 1-element, got {value!r}.")
            value = value.item()
        check_number(f"{kind}({name}=...): {name}", value, limits)


def check_names(group: dict[str, Any], options: dict[str, Any]) -> None:
    """Refuse options of a group that are misspelt, or are not a group's own."""
    for name in group.keys() - options.keys() - {"params", "param_names"}:
        if name in ("max_grad_norm", "stochastic_rounding"):
            raise InvalidArgument(
                f"{name}={group[name]!r} in a group: it is for all groups together; give it to the "
                "optimizer."
            )
        near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.85)
        if near:
            raise InvalidArgument(f"{name!r} in a group is no option; did you mean {near[0]!r}?")


class LARS(Fused):
    r"""Layer-wise adaptive rate scaling: momentum whose rate goes by each tensor's norms.

    .. math::
        \lambda = \eta_0 \frac{\|w\|}{\|g\| + \beta \|w\| + \epsilon}, \qquad
        v \leftarrow \mu v + \eta\lambda (g + \beta w), \qquad w \leftarrow w - v

    A tensor is a layer. Norms are summed in float64 over tiles of fixed size; where one is 0,
    :math:`\lambda = 1`. Biases and norms' weights are usually left out: put them in a group with
    ``layer_adaptation=False, weight_decay=0``.

    Parameters
    ----------
    params : iterable of tensors or of groups
    lr : float or tensor, default=1e-3
        :math:`\eta`.
    momentum : float, default=0.9
        :math:`\mu`, in [0, 1).
    weight_decay : float, default=0
        :math:`\beta`.
    trust_coefficient : float, default=0.001
        :math:`\eta_0`.
    eps : float, default=0
        :math:`\epsilon`.
    layer_adaptation : bool, default=True
        False: :math:`\lambda = 1`.
    maximize : bool, default=False
    max_grad_norm, stochastic_rounding
        As of :class:`SGD`.

    Attributes
    ----------
    grad_norm : float or None
        As of :class:`SGD`.

    References
    ----------
    Y. You, I. Gitman, B. Ginsburg, Large Batch Training of Convolutional Networks,
    arXiv 1708.03888 (2017).

    Examples
    --------
    >>> import torch
    >>> from schuss.torch import LARS
    >>> model = torch.nn.Linear(3, 1)
    >>> groups = [
    ...     {"params": [model.weight]},
    ...     {"params": [model.bias], "layer_adaptation": False, "weight_decay": 0},
    ... ]
    >>> optimizer = LARS(groups, lr=0.1, weight_decay=1e-4)
    >>> model(torch.ones(4, 3)).sum().backward()
    >>> optimizer.step()
    """

    _counts = False

    @with_near_names
    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0,
        trust_coefficient: float = 0.001,
        eps: float = 0,
        *,
        layer_adaptation: bool = True,
        maximize: bool = False,
        max_grad_norm: float | None = None,
        stochastic_rounding: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
            "layer_adaptation": layer_adaptation,
            "maximize": maximize,
        }
        super().__init__(params, defaults)
        self._prepare(max_grad_norm, stochastic_rounding)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_all(
            "LARS",
            lr=(group["lr"], {">=": 0}),
            momentum=(group["momentum"], {">=": 0, "<": 1}),
            weight_decay=(group["weight_decay"], {">=": 0}),
            trust_coefficient=(group["trust_coefficient"], {">": 0}),
            eps=(group["eps"], {">=": 0}),
        )
        check_flags(layer_adaptation=group["layer_adaptation"], maximize=group["maximize"])

    def _slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def _update(self, group: dict[str, Any]) -> str:
        return "lars"

    def _numbers(self, group: dict[str, Any], step: Any) -> dict[str, float]:
        return {
            "decay": float(group["weight_decay"]),
            "rate": -float(group["lr"]),
            "first": float(group["momentum"]),
            "eps": float(group["eps"]),
            "trust": float(group["trust_coefficient"]) if group["layer_adaptation"] else 0.0,
        }


class LAMB(Fused):
    r"""Adam whose rate goes by each tensor's norms, for large batches.

    .. math::
        r = \hat m / (\sqrt{\hat v} + \epsilon) + \lambda w, \qquad
        w \leftarrow w - \eta \frac{\|w\|}{\|r\|} r

    with the moments of Adam. A tensor is a layer. Norms are summed in float64 over tiles of fixed
    size; where one is 0, their ratio is 1. Biases and norms' weights are usually left out: put them
    in a group with ``layer_adaptation=False, weight_decay=0``.

    Parameters
    ----------
    params : iterable of tensors or of groups
    lr : float or tensor, default=1e-3
        :math:`\eta`.
    betas : tuple of two floats, default=(0.9, 0.999)
        Decay of the first and second moment, each in [0, 1).
    eps : float, default=1e-6
        :math:`\epsilon`.
    weight_decay : float, default=0.01
        :math:`\lambda`.
    layer_adaptation : bool, default=True
        False: the ratio is 1.
    maximize : bool, default=False
    max_grad_norm, stochastic_rounding
        As of :class:`SGD`.

    Attributes
    ----------
    grad_norm : float or None
        As of :class:`SGD`.

    References
    ----------
    Y. You et al., Large Batch Optimization for Deep Learning: Training BERT in 76 minutes,
    ICLR 2020, algorithm 2.

    Examples
    --------
    >>> import torch
    >>> from schuss.torch import LAMB
    >>> w = torch.ones(4, requires_grad=True)
    >>> optimizer = LAMB([w], lr=0.1, weight_decay=0)
    >>> w.square().sum().backward()
    >>> optimizer.step()
    >>> w.detach().numpy().round(3)
    array([0.9, 0.9, 0.9, 0.9], dtype=float32)
    """

    @with_near_names
    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        layer_adaptation: bool = True,
        maximize: bool = False,
        max_grad_norm: float | None = None,
        stochastic_rounding: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "layer_adaptation": layer_adaptation,
            "maximize": maximize,
        }
        super().__init__(params, defaults)
        self._prepare(max_grad_norm, stochastic_rounding)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise InvalidType(f"LAMB(betas={betas!r}): expected two numbers.")
        for beta in betas:
            check_all("LAMB", betas=(beta, {">=": 0, "<": 1}))
        check_all(
            "LAMB",
            lr=(group["lr"], {">=": 0}),
            eps=(group["eps"], {">=": 0}),
            weight_decay=(group["weight_decay"], {">=": 0}),
        )
        check_flags(layer_adaptation=group["layer_adaptation"], maximize=group["maximize"])

    def _slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _update(self, group: dict[str, Any]) -> str:
        return "lamb"

    def _numbers(self, group: dict[str, Any], step: Any) -> dict[str, float]:
        made = moments(group, step)
        return {
            **made,
            "first_scale": 1 / made["first_scale"],
            "decay": float(group["weight_decay"]),
            "rate": -float(group["lr"]),
            "trust": 1.0 if group["layer_adaptation"] else 0.0,
        }
