"""What is put around an optimizer: SAM, and the accumulation of gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from schuss.checks import check_flags
from schuss.errors import InvalidArgument, InvalidType
from schuss.formulas.spec import check_number
from schuss.torch.optimizers import Fused, crew
from schuss.torch.tensors import tables

__all__ = ["SAM", "Accumulator", "accumulate"]


def check_optimizer(optimizer: Any) -> None:
    """Raise unless it is one of torch's kind, whose step needs no closure."""
    name = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InvalidType(f"optimizer={optimizer!r}: expected a torch.optim.Optimizer, got {name}.")
    if isinstance(optimizer, (SAM, torch.optim.LBFGS)):
        raise InvalidType(f"optimizer: a step of {name} needs a closure; expected one without.")


class SAM(torch.optim.Optimizer):
    r"""Sharpness-aware minimization around an optimizer: step by the gradient at a worse point.

    .. math::
        \hat w = w + \rho \frac{g}{\|g\|}, \qquad
        w \leftarrow \text{the optimizer's step from } w \text{ by } \nabla f(\hat w)

    The norm is that of all gradients together, summed in float64. Parameters come back to what they
    were bit for bit. Groups and state are the optimizer's own, so that learning-rate schedulers and
    checkpoints see them. With a ``GradScaler`` call ``first_step()`` after the first backward pass,
    and ``scaler.step(optimizer)`` after the second.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Makes the steps; of schuss.torch, of torch, or any other.
    rho : float, default=0.05
        Radius of the neighbourhood; >= 0.
    adaptive : bool, default=False
        Scale each parameter's part by its square, as ASAM does: :math:`w^2 g / \|w g\|`.

    Raises
    ------
    schuss.errors.SchussError
        For bad arguments, and steps out of turn.

    References
    ----------
    P. Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization,
    ICLR 2021. J. Kwon et al., ASAM, ICML 2021.

    Examples
    --------
    >>> import torch
    >>> from schuss.torch import SAM, SGD
    >>> w = torch.ones(2, requires_grad=True)
    >>> optimizer = SAM(SGD([w], lr=0.25), rho=0.1)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = w.square().sum()
    ...     loss.backward()
    ...     return loss
    >>> optimizer.step(closure)
    tensor(2., grad_fn=<SumBackward0>)
    >>> w.detach().numpy().round(4)
    array([0.4646, 0.4646], dtype=float32)
    """

    _step_supports_amp_scaling = True

    def __init__(
        self, optimizer: torch.optim.Optimizer, rho: float = 0.05, *, adaptive: bool = False
    ) -> None:
        check_optimizer(optimizer)
        check_flags(adaptive=adaptive)
        self.rho = check_number("rho", rho, {">=": 0})
        self.adaptive = adaptive
        self.base = optimizer
        self._before: list[tuple[torch.Tensor, torch.Tensor]] | None = None
        super().__init__(optimizer.param_groups, optimizer.defaults)

    # Groups and state are the optimizer's; what torch's base class sets of its own is not kept.

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's groups."""
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, _: Any) -> None:
        pass

    @property
    def state(self) -> Any:
        """The optimizer's state."""
        return self.base.state

    @state.setter
    def state(self, _: Any) -> None:
        pass

    def __getstate__(self) -> dict[str, Any]:
        kept = ("base", "rho", "adaptive", "defaults")
        return {name: self.__dict__[name] for name in kept} | {"_before": None}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to the optimizer."""
        if not any(group is param_group for group in self.base.param_groups):
            self.base.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict`` of the optimizer's."""
        self.base.load_state_dict(state_dict)

    @torch._disable_dynamo
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step.

        Parameters
        ----------
        closure : callable
            Computes the loss and its gradients anew, and returns the loss. Called twice. None
            after ``first_step``: as ``second_step``.

        Returns
        -------
        loss
            At the parameters before the step.
        """
        if closure is None and self._before is not None:
            return self.second_step()
        if closure is None:
            raise InvalidArgument(
                "closure=None: SAM computes the gradients twice; expected a function that does so, "
                "or calls of first_step and second_step."
            )
        with torch.enable_grad():
            loss = closure()
        self.first_step()
        try:
            with torch.enable_grad():
                closure()
        except BaseException:
            self._return()
            raise
        self.second_step()
        return loss

    @torch.no_grad()
    def first_step(self, zero_grad: bool = False) -> None:
        """Go to the worse point; the gradients have been computed."""
        if self._before is not None:
            raise InvalidArgument("first_step: came twice; expected second_step.")
        pairs = [
            (p, p.grad)
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        self._before = [(p, p.detach().clone()) for p, _ in pairs]
        if pairs:
            directions = [p.abs() * g if self.adaptive else g for p, g in pairs]
            rate = self.rho / (norm_of(directions) + 1e-12)
            if self.adaptive:
                directions = [p.abs() * d for (p, _), d in zip(pairs, directions, strict=True)]
            torch._foreach_add_([p for p, _ in pairs], directions, alpha=rate)
        if zero_grad:
            self.zero_grad()

    @torch.no_grad()
    def second_step(self, zero_grad: bool = False) -> None:
        """Go back and make the optimizer's step; the gradients have been computed anew."""
        if self._before is None:
            raise InvalidArgument("second_step: came first; expected first_step.")
        self._return()
        found_inf, scale = (getattr(self, name, None) for name in ("found_inf", "grad_scale"))
        if found_inf is None or not float(found_inf):
            divided_step(self.base, 1.0 if scale is None else float(scale))
        if zero_grad:
            self.zero_grad()

    def _return(self) -> None:
        with torch.no_grad():
            for p, before in self._before or ():
                p.copy_(before)
        self._before = None


def divided_step(
    optimizer: torch.optim.Optimizer, divisor: float, make: Callable[..., Any] | None = None
) -> None:
    """A step by the gradients over a divisor, which ours divide by within their pass.

    ``make`` is what makes it, such as ``step`` of a GradScaler; by default the optimizer itself.
    """
    make = (lambda one, **given: one.step(**given)) if make is None else make
    if isinstance(optimizer, Fused):
        make(optimizer, divisor=divisor)
        return
    params = [p for group in optimizer.param_groups for p in group["params"]]
    grads = [p.grad for p in params if p.grad is not None]
    if grads and divisor != 1:
        torch._foreach_div_(grads, divisor)
    make(optimizer)


def norm_of(tensors: list[torch.Tensor]) -> float:
    """Norm of all numbers together, summed in float64 over tiles of fixed size."""
    found = tables([tensors, tensors], ("the tensor", "the gradient"))
    return math.sqrt(math.fsum(t.lying.squared_norm(crew(t)) for t in found))


class Accumulator:
    """Steps of an optimizer by the gradients of several micro-batches; see :func:`accumulate`.

    Attributes
    ----------
    optimizer : torch.optim.Optimizer
    window : int
        Micro-batches of a step.
    scaler : torch.amp.GradScaler or None
    waiting : int
        Micro-batches whose gradients wait for the step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, window: int, scaler: Any = None) -> None:
        self.optimizer = optimizer
        self.window = window
        self.scaler = scaler
        self.waiting = 0
        self._first = self._weight = 1.0

    def backward(self, loss: torch.Tensor, samples: float = 1) -> bool:
        """Add the gradients of a micro-batch, and make the step if the window is full.

        Parameters
        ----------
        loss : tensor of shape ()
            Mean loss of the micro-batch.
        samples : int, default=1
            How many samples that is the mean of: its weight. Where micro-batches are all alike it
            may be left out.

        Returns
        -------
        bool
            Whether the step was made.
        """
        samples = check_number("samples", samples, {">": 0})
        if self.waiting == 0:
            self.optimizer.zero_grad()
            self._first, self._weight = samples, 0.0
        weight = samples / self._first  # 1 where all are alike: nothing overflows that would not
        loss = loss * weight
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        self.waiting += 1
        self._weight += weight
        return self.waiting >= self.window and self.flush()

    def flush(self) -> bool:
        """Make the step of what waits, a short last window; returns whether there was any."""
        if not self.waiting:
            return False
        divided_step(self.optimizer, self._weight, getattr(self.scaler, "step", None))
        if self.scaler is not None:
            self.scaler.update()
        self.drop()
        return True

    def drop(self) -> None:
        """Forget the gradients that wait."""
        self.optimizer.zero_grad()
        self.waiting = 0

    def __enter__(self) -> Accumulator:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.flush()
        else:
            self.drop()


def accumulate(optimizer: torch.optim.Optimizer, k: int, *, scaler: Any = None) -> Accumulator:
    """Make a step after every k micro-batches, as if they had been one batch.

    Each counts by the samples it held, so that the step is exact also where micro-batches differ in
    size, and in a short last window. Gradients that stood there before a window are dropped.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Of schuss.torch, whose pass divides the gradients as well, or any other whose step needs no
        closure.
    k : int
        Micro-batches of a step; >= 1.
    scaler : torch.amp.GradScaler, optional
        Scales the losses, makes the steps, and is updated after each.

    Returns
    -------
    Accumulator
        ``backward(loss, samples)`` in place of ``loss.backward()``, ``optimizer.step()`` and
        ``optimizer.zero_grad()``. At its end a ``with`` block makes the step of what is left, or
        drops it after an error; ``flush()`` and ``drop()`` do so elsewhere.

    Raises
    ------
    schuss.errors.SchussError
        For bad arguments.

    Examples
    --------
    >>> import torch
    >>> from schuss.torch import SGD, accumulate
    >>> w = torch.zeros(1, requires_grad=True)
    >>> y = torch.tensor([1.0, 2.0, 6.0])
    >>> with accumulate(SGD([w], lr=0.5), 2) as steps:  # two batches: of 2 samples, and of 1
    ...     for part in (y[:2], y[2:]):
    ...         steps.backward((w - part).square().mean(), len(part))
    False
    True
    >>> w.item() == y.mean()
    tensor(True)
    """
    check_optimizer(optimizer)
    if any(group.get("differentiable") for group in optimizer.param_groups):
        raise InvalidArgument("optimizer: has differentiable=True; expected False.")
    return Accumulator(optimizer, check_number("k", k, {">=": 1}, integer=True), scaler)
