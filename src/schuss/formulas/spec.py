"""What losses, rules, schedules and orders share: checked parameters and a text form.

A :class:`Spec` is a frozen dataclass. ``str`` gives its text form, as used on the command line and
in checkpoints (``huber(epsilon=1.35)``); ``repr`` gives an expression that evaluates back
(``schuss.losses.huber(epsilon=1.35)``); :class:`Table` parses the text form.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from schuss.errors import InvalidArgument, InvalidType, unknown_name

S = TypeVar("S", bound="Spec")
R = TypeVar("R", bound="Spec")


def parameter(
    default: Any = dataclasses.MISSING,
    *,
    over: float | None = None,
    at_least: float | None = None,
    under: float | None = None,
    at_most: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare a dataclass field together with the values it accepts."""
    limits = {
        sign: limit
        for sign, limit in ((">", over), (">=", at_least), ("<", under), ("<=", at_most))
        if limit is not None
    }
    return dataclasses.field(default=default, metadata={"limits": limits, "choices": choices})


def source_of(function: Callable[..., Any]) -> str:
    """What a function is made of: its text, or its bytecode, and the values it closes over."""
    function = getattr(function, "py_func", function)  # as Numba's compiled functions have it
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt, or no plain function
        code = getattr(function, "__code__", None)
        if code is None:
            return str(getattr(function, "__qualname__", type(function).__qualname__))
        text = code.co_code.hex() + repr(code.co_consts) + repr(code.co_names)
    cells = getattr(function, "__closure__", None) or ()
    return text + "".join(repr(cell.cell_contents) for cell in cells)


def digest_of(*functions: Callable[..., Any]) -> str:
    """A short digest of what functions are made of."""
    return hashlib.sha256("\0".join(map(source_of, functions)).encode()).hexdigest()[:16]


# What parsing a text that is no Python expression, or a monstrous one, raises.
_UNREADABLE = (SyntaxError, ValueError, TypeError, MemoryError, RecursionError)

_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def check_number(name: str, value: Any, limits: dict[str, float], *, integer: bool = False) -> Any:
    """Return ``value`` as a Python int or float that lies within ``limits``, or raise."""
    kind = "an integer" if integer else "a finite number"
    bounds = " and ".join(f"{sign} {limit:g}" for sign, limit in limits.items())
    accepted = f"{kind} {bounds}".rstrip()
    try:
        if isinstance(value, (bool, np.bool_, str, bytes)):  # which float() would accept
            raise TypeError
        number = operator.index(value) if integer else float(value)
    except (TypeError, ValueError):
        raise InvalidType(
            f"{name}={value!r}: expected {accepted}, got {type(value).__name__}."
        ) from None
    except OverflowError:
        number = math.inf
    if not integer and not math.isfinite(number):
        raise InvalidArgument(f"{name}={value!r}: expected {accepted}.")
    if not all(_COMPARE[sign](number, limit) for sign, limit in limits.items()):
        raise InvalidArgument(f"{name}={value!r}: expected {accepted}.")
    return number


@dataclasses.dataclass(frozen=True)
class Spec:
    """Base of the small value objects that describe a run."""

    family: ClassVar[str]

    @property
    def name(self) -> str:
        """Name in the family's table."""
        return type(self).__name__

    @property
    def identity(self) -> str:
        """What tells it from others in a checkpoint: the text form, and a digest of functions."""
        return str(self)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, self._checked(field))

    def _checked(self, field: dataclasses.Field[Any]) -> Any:
        value = getattr(self, field.name)
        label = f"{self.name}({field.name}=...): {field.name}"
        choices = field.metadata.get("choices")
        if choices is not None:
            if value not in choices:
                raise unknown_name(label, value, choices)
            return value
        if field.type == "bool":
            if not isinstance(value, (bool, int)) or value not in (0, 1):
                raise InvalidType(f"{label}={value!r}: expected True or False.")
            return bool(value)
        if field.type == "int | None" and value is None:
            return value
        if field.type in ("float", "int", "int | None"):
            limits = field.metadata.get("limits", {})
            return check_number(label, value, limits, integer=field.type != "float")
        return value

    def _arguments(self, form: Callable[[Any], str]) -> str:
        values = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return ", ".join(f"{name}={form(value)}" for name, value in values)

    def __str__(self) -> str:
        arguments = self._arguments(lambda v: str(v) if isinstance(v, Spec) else repr(v))
        return f"{self.name}({arguments})" if arguments else self.name

    def __repr__(self) -> str:
        return f"schuss.{self.family}.{self.name}({self._arguments(repr)})"


class Table(Generic[S]):
    """The named members of one family, in the order in which they were added.

    Parameters
    ----------
    argument : str
        What users call a member of this family (``"loss"``); errors name it.
    base : type
        The family's base class.
    further : str
        What the argument accepts besides, for errors.
    """

    def __init__(self, argument: str, base: type[S], *further: str) -> None:
        self.argument = argument
        self.further = further
        self.base = base
        self.rows: dict[str, type[S]] = {}

    def add(self, row: type[R]) -> type[R]:
        """Add a class under its own name; usable as a decorator."""
        self.rows[row.__name__] = row  # type: ignore[assignment]
        return row

    def __iter__(self) -> Iterator[type[S]]:
        return iter(self.rows.values())

    def names(self) -> list[str]:
        """Names of all members, in table order.

        Returns
        -------
        list of str

        Examples
        --------
        >>> import schuss
        >>> schuss.losses.names()[:3], schuss.rules.names()
        (['squared_error', 'mse', 'huber'], ['sgd', 'adam', 'adamw', 'adagrad'])
        """
        return list(self.rows)

    def get(self, value: Any) -> S:
        """Return the member that a name, a text form, a class or an instance stands for.

        Parameters
        ----------
        value : str, type or Spec
            A name (``"huber"``), a text form (``"huber(epsilon=1.35)"``), a class of the family
            (its defaults are taken), or an object of it (returned as it is).

        Returns
        -------
        Spec
            Of this table's family.

        Raises
        ------
        schuss.errors.InvalidArgument
            If the name is in no row (the nearest is suggested), the text cannot be read, or a
            parameter is unknown or out of range.
        schuss.errors.InvalidType
            If ``value`` is none of these.

        Examples
        --------
        >>> import schuss
        >>> schuss.losses.get("huber(epsilon=2)")
        schuss.losses.huber(epsilon=2.0)
        >>> schuss.orders.get("blocks(rows=1024)").buffer
        16
        """
        if isinstance(value, self.base):
            return value
        if isinstance(value, type) and issubclass(value, self.base):
            return self._build(value, (), {})
        if isinstance(value, str):
            return self._parse(value)
        raise InvalidType(
            f"{self.argument}={value!r}: expected a name, a text form or an object of "
            f"schuss.{self.base.family}; got {type(value).__name__}."
        )

    def _parse(self, text: str) -> S:
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except _UNREADABLE:
            raise self._unreadable(text) from None
        parsed = self._evaluate(tree, text)
        if not isinstance(parsed, self.base):
            raise self._unreadable(text)
        return parsed

    def _evaluate(self, node: ast.expr, text: str) -> Any:
        if isinstance(node, ast.Name):
            return self._build(self._row(node.id), (), {})
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            keywords = {k.arg: self._evaluate(k.value, text) for k in node.keywords if k.arg}
            arguments = [self._evaluate(a, text) for a in node.args]
            if len(keywords) == len(node.keywords):
                return self._build(self._row(node.func.id), arguments, keywords)
        try:
            return ast.literal_eval(node)
        except _UNREADABLE:
            raise self._unreadable(text) from None

    def _row(self, name: str) -> type[S]:
        if name not in self.rows:
            raise unknown_name(self.argument, name, [*self.rows, *self.further])
        return self.rows[name]

    def _build(self, row: Callable[..., S], arguments: Any, keywords: dict[str, Any]) -> S:
        try:
            inspect.signature(row).bind(*arguments, **keywords)
        except TypeError as error:
            signature = f"{row.__name__}{_signature(row)}"
            raise InvalidArgument(f"{self.argument}: {signature}: {error}.") from None
        return row(*arguments, **keywords)

    def _unreadable(self, text: str) -> InvalidArgument:
        return InvalidArgument(
            f"{self.argument}={text!r} is not a name or a text form such as name(parameter=1.0)."
            f" Accepted names: {', '.join(sorted(self.rows))}."
        )


def _signature(row: Callable[..., Any]) -> str:
    parameters = inspect.signature(row).parameters.values()
    return "(" + ", ".join(str(p).split(":")[0] for p in parameters) + ")"
