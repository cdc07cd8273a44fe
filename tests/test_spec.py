"""Value objects with checked parameters and a text form, on a family made up for the purpose."""

from __future__ import annotations

import dataclasses
import pickle
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schuss.errors import InvalidArgument, InvalidType, SchussError
from schuss.formulas.spec import Spec, Table, check_number, parameter


@dataclasses.dataclass(frozen=True, repr=False)
class Paint(Spec):
    family: ClassVar[str] = "paints"


PAINTS: Table[Paint] = Table("paint", Paint)


def row(cls):
    return PAINTS.add(dataclasses.dataclass(frozen=True, repr=False)(cls))


@row
class plain(Paint):
    pass


@row
class gloss(Paint):
    shine: float = parameter(default=0.5, over=0, at_most=1)
    coats: int = parameter(default=2, at_least=1)
    quick: bool = False
    base: str = parameter(default="oil", choices=("oil", "water"))


@row
class mixed(Paint):
    under: Paint = plain()
    over: Paint = plain()
    parts: tuple[float, ...] = (1.0, 2.0)


# ---------------------------------------------------------------------------------------- parsing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", plain()),
        ("plain()", plain()),
        ("  gloss ", gloss()),
        ("gloss\n", gloss()),
        ("gloss(0.25)", gloss(shine=0.25)),
        ("gloss(0.25, 3, quick=True)", gloss(0.25, 3, True)),
        ("gloss(base='water')", gloss(base="water")),
        ("gloss( shine = 1 )", gloss(shine=1.0)),
        ("mixed(gloss(coats=4), over=plain)", mixed(gloss(coats=4), plain())),
        ("mixed(parts=(3, -1.5))", mixed(parts=(3, -1.5))),
    ],
)
def test_text_forms(text, expected):
    assert PAINTS.get(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1",
        "'plain'",
        "None",
        "plain, gloss",
        "plain; gloss",
        "paints.plain",
        "gloss(",
        "gloss(shine=)",
        "gloss(shine=0.5, shine=0.5)",
        "gloss(*[0.5])",
        "gloss(**{'shine': 0.5})",
        "gloss(shine=1+1)",
        "gloss(shine=[x for x in y])",
        "gloss(shine=lambda: 0)",
        "gloss({[]: 1})",
        "gloss({1: 2}[1])",
        "gloss()()",
        "gloss.__class__",
        "__import__('os').system('true')",
        "glo\0ss",
        "gloss(" + "-" * 5000 + "1)",
        "(" * 5000 + ")" * 5000,
    ],
    ids=lambda text: repr(text[:30]),
)
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(InvalidArgument, match="paint="):
        PAINTS.get(text)


@given(st.text(max_size=30))
def test_any_text_is_a_member_or_a_clear_error(text):
    try:
        member = PAINTS.get(text)
    except SchussError as error:
        assert "paint" in str(error)
    else:
        assert isinstance(member, Paint)


@pytest.mark.parametrize("value", [None, 3, 1.5, ["plain"], b"plain", int, object()])
def test_what_is_no_name_is_refused(value):
    with pytest.raises(InvalidType, match=r"paint=.*schuss\.paints.*got "):
        PAINTS.get(value)


def test_get_returns_what_it_is_given():
    member = gloss(shine=0.25)
    assert PAINTS.get(member) is member
    assert PAINTS.get(gloss) == gloss()


def test_unknown_names_and_parameters():
    with pytest.raises(InvalidArgument, match=r"paint='glos' .*'gloss'.*gloss, mixed, plain"):
        PAINTS.get("glos")
    with pytest.raises(InvalidArgument, match="paint='zzz' is not known; accepted"):
        PAINTS.get("mixed(zzz)")
    with pytest.raises(InvalidArgument, match=r"gloss.*'matt'"):
        PAINTS.get("gloss(matt=1)")
    with pytest.raises(InvalidArgument, match=r"plain\(\).*positional"):
        PAINTS.get("plain(1)")


def test_table():
    assert PAINTS.names() == ["plain", "gloss", "mixed"]
    assert list(PAINTS) == [plain, gloss, mixed]


# ------------------------------------------------------------------------------- forms and identity


@given(
    shine=st.floats(0, 1, exclude_min=True),
    coats=st.integers(1),
    quick=st.booleans(),
    parts=st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple),
)
def test_forms_round_trip(shine, coats, quick, parts):
    first = gloss(shine, coats, quick, "water")
    nested = mixed(under=first, over=plain(), parts=parts)
    for member in (first, nested):
        assert PAINTS.get(str(member)) == member
        assert eval(repr(member), {"schuss": Scope}) == member


class Scope:
    """Stands for the package in a repr."""

    paints = SimpleNamespace(plain=plain, gloss=gloss, mixed=mixed)


def test_forms():
    assert str(plain()) == plain().name == "plain"
    assert repr(plain()) == "schuss.paints.plain()"
    assert repr(gloss()) == "schuss.paints.gloss(shine=0.5, coats=2, quick=False, base='oil')"
    assert str(mixed(under=gloss())).startswith("mixed(under=gloss(shine=0.5, ")


def test_identity():
    assert gloss() == gloss(0.5) != gloss(0.25)
    assert plain() != gloss()
    assert len({gloss(), gloss(0.5), gloss(0.25)}) == 2
    assert pickle.loads(pickle.dumps(gloss(0.25))) == gloss(0.25)
    with pytest.raises(dataclasses.FrozenInstanceError):
        gloss().shine = 1.0


# ------------------------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"shine": 0}, InvalidArgument, "gloss.*shine=0: expected a finite number > 0 and <= 1"),
        ({"shine": 1.5}, InvalidArgument, "shine=1.5"),
        ({"shine": float("nan")}, InvalidArgument, "shine=nan.*finite"),
        ({"shine": float("inf")}, InvalidArgument, "shine=inf.*finite"),
        ({"shine": 10**400}, InvalidArgument, "finite"),
        ({"shine": "0.5"}, InvalidType, "shine='0.5'.*got str"),
        ({"shine": b"1"}, InvalidType, "got bytes"),
        ({"shine": None}, InvalidType, "shine=None.*got NoneType"),
        ({"shine": True}, InvalidType, "shine=True.*got bool"),
        ({"shine": np.True_}, InvalidType, "got bool"),
        ({"coats": 0}, InvalidArgument, "coats=0: expected an integer >= 1"),
        ({"coats": 1.0}, InvalidType, "coats=1.0: expected an integer.*got float"),
        ({"coats": False}, InvalidType, "coats=False"),
        ({"quick": 2}, InvalidType, "quick=2: expected True or False"),
        ({"quick": None}, InvalidType, "quick=None"),
        ({"base": "watr"}, InvalidArgument, "base='watr'.*'water'.*oil, water"),
    ],
)
def test_parameters_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        gloss(**arguments)


def test_parameters_are_stored_as_python_numbers():
    made = gloss(np.float32(0.5), np.int64(3), 1)
    assert [type(v) for v in (made.shine, made.coats, made.quick)] == [float, int, bool]
    assert made == gloss(0.5, 3, True)


@given(st.integers())
def test_check_number_keeps_integers_whole(number):
    assert check_number("n", number, {}, integer=True) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_check_number_keeps_every_bit(number):
    assert check_number("x", number, {}) == number
