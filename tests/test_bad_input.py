"""What bad input gets: an error of schuss that names argument, value and what is accepted.

And what is no bad input: read-only, strided, misaligned, foreign and unusual arrays work, and
nothing a caller passes is written.
"""

from __future__ import annotations

import datetime

import numpy as np
import pytest

import schuss
from schuss.data import Checkpoint
from schuss.errors import (
    BackendError,
    DataError,
    DataTypeError,
    InvalidArgument,
    InvalidType,
    NotYet,
    SchussError,
)

BUILT_IN = {
    InvalidArgument: ValueError,
    InvalidType: TypeError,
    DataError: ValueError,
    DataTypeError: TypeError,
    BackendError: RuntimeError,
    NotYet: NotImplementedError,
}

N, D = 30, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D))
Y = X @ [1.0, -2.0, 0.5] + 1.0
LABELS = np.where(Y > 1, "yes", "no")
W = RNG.random(N) + 0.5
for array in (X, Y, W):
    array.setflags(write=False)


def spoiled(array: np.ndarray, place: tuple[int, ...] | int, value: float) -> np.ndarray:
    copy = array.copy()
    copy[place] = value
    return copy


def sparse(kind: str):
    matrix = pytest.importorskip("scipy.sparse")
    return getattr(matrix, kind)(X)


class Chars:
    """An argument with a repr of its own."""

    def __repr__(self) -> str:
        return "<an object>"


def refuses(error: type[SchussError], message: str, call) -> None:
    """The call raises this very class, a built-in one as well, with a message of one line."""
    with pytest.raises(error, match=message) as caught:
        call()
    assert type(caught.value) is error
    assert isinstance(caught.value, SchussError) and isinstance(caught.value, BUILT_IN[error])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


# ---- Data ----------------------------------------------------------------------------------
# (name, value of X, error, message); for fit and gradient, and validation X.

BAD_X = [
    ("none", None, DataError, r"X: expected two dimensions .*got shape \(\)"),
    ("scalar", 3.0, DataError, r"X: expected two dimensions .*got shape \(\)"),
    ("vector", X[:, 0], DataError, r"X: .*got shape \(30,\); .*X\.reshape\(-1, 1\)"),
    ("cube", X.reshape(5, 6, 3), DataError, r"X: .*got shape \(5, 6, 3\)"),
    ("no rows", X[:0], DataError, r"X: has no rows \(shape \(0, 3\)\)"),
    ("no columns", X[:, :0], DataError, r"X: has no columns \(shape \(30, 0\)\)"),
    ("empty list", [], DataError, r"X: expected two dimensions .*got shape \(0,\)"),
    ("ragged", [[1.0, 2.0], [3.0]], DataError, "X: cannot be read as an array"),
    ("nan", spoiled(X, (4, 1), np.nan), DataError, r"X\[4, 1\] is nan: NaN and infinity"),
    ("inf", spoiled(X, (29, 2), np.inf), DataError, r"X\[29, 2\] is inf"),
    ("-inf", spoiled(X, (0, 0), -np.inf), DataError, r"X\[0, 0\] is -inf"),
    ("late nan", spoiled(X.T, (2, 29), np.nan).T, DataError, r"X\[29, 2\] is nan"),
    ("float32 nan", spoiled(X.astype("f4"), (7, 0), np.nan), DataError, r"X\[7, 0\] is nan"),
    ("object", X.astype(object), DataTypeError, r"X: dtype object is not accepted .*astype"),
    ("None inside", [[1.0, None]] * N, DataTypeError, "X: dtype object is not accepted"),
    ("complex", X + 0j, DataTypeError, "X: dtype complex128 is not accepted .*real and imag"),
    ("text", X.astype(str), DataTypeError, "X: dtype <U.* is not accepted .*encode text"),
    ("bytes", X.astype("S"), DataTypeError, r"X: dtype \|?S.* is not accepted .*encode text"),
    ("dates", np.zeros((N, 2), "M8[D]"), DataTypeError, r"X: dtype datetime64\[D\] is not"),
    ("spans", np.zeros((N, 2), "m8[s]"), DataTypeError, r"X: dtype timedelta64\[s\] is not"),
    ("record", np.zeros((N, 2), "f8,i4"), DataTypeError, "X: dtype .* is not accepted"),
    ("masked", np.ma.masked_less(X, 0), InvalidType, "X: masked arrays are not accepted"),
    ("dict", {"a": 1}, DataError, r"X: expected two dimensions .*got shape \(\)"),
]
SPARSE = ["csr_matrix", "csc_array", "coo_array", "lil_matrix", "dia_array"]


@pytest.mark.parametrize(("name", "bad", "error", "message"), BAD_X, ids=[r[0] for r in BAD_X])
def test_bad_x(name, bad, error, message):
    refuses(error, "^" + message, lambda: schuss.fit(bad, Y))
    refuses(error, "^" + message, lambda: schuss.gradient(bad, Y, np.zeros(D)))
    if name != "masked":
        given = (bad, Y)
        refuses(error, "^validation " + message.replace("X\\.", "validation X\\."),
                lambda: schuss.fit(X, Y, validation=given))  # fmt: skip
    result = schuss.fit(X, Y, epochs=1)
    refuses(error, "^" + message, lambda: result.predict(bad))


@pytest.mark.parametrize("kind", SPARSE)
def test_sparse_matrices_are_accepted_for_X_alone(kind):
    S = sparse(kind)
    message = r"^data\[0\]: is a sparse matrix; pass data\[0\]\.toarray\(\)"
    refuses(InvalidType, message, lambda: schuss.minimize(lambda w, A, b: w, [0.0], (S, Y)))
    message = r"^y: is a sparse matrix; pass y\.toarray\(\)"
    refuses(InvalidType, message, lambda: schuss.fit(S, S))


def test_large_float64_values_are_infinite_in_float32():
    big = spoiled(X, (3, 2), 1e200)
    refuses(DataError, r"^X\[3, 2\] is (inf|1e\+?200)", lambda: schuss.fit(big, Y, dtype="float32"))


BAD_Y = [
    ("none", None, "real", DataError, r"y: expected one dimension, got shape \(\)"),
    ("short", Y[:-1], "real", DataError, "y: has 29 entries but X has 30 rows"),
    ("column", Y[:, None], "real", DataError, r"y: .*got shape \(30, 1\); pass .*y\.ravel\(\)"),
    ("two columns", X[:, :2], "binary", DataError, r"y: .*got shape \(30, 2\); labels are one"),
    ("cube", Y.reshape(5, 6, 1), "real", DataError, "y: "),
    ("nan", spoiled(Y, 5, np.nan), "real", DataError, r"y\[5\] is nan: NaN and infinity"),
    ("inf", spoiled(Y, 0, np.inf), "real", DataError, r"y\[0\] is inf"),
    ("object", Y.astype(object), "real", DataTypeError, "y: dtype object is not accepted"),
    ("complex", Y + 0j, "real", DataTypeError, "y: dtype complex128 is not accepted"),
    ("text", LABELS, "real", DataTypeError, "y: dtype <U3 is not .*'squared_error'.*log_loss"),
    ("dates", np.zeros(N, "M8[D]"), "real", DataTypeError, "y: dtype datetime64"),
    ("masked", np.ma.masked_less(Y, 0), "real", InvalidType, "y: masked arrays"),
    ("negative", Y, "counts", DataError, r"y\[\d+\] is -.*loss='poisson' accepts numbers >= 0"),
    ("one class", ["a"] * N, "binary", DataError, r"y: loss='log_loss' .*two .*got 1 \('a'\)"),
    ("three", np.arange(N) % 3, "binary", DataError, r"got 3 \(0, 1, 2\); .*'multinomial'"),
    ("many", Y, "binary", DataError, r"got 30 \(.*, \.\.\.\); more than two .*'multinomial'"),
    ("nan label", [0.0, np.nan] * 15, "binary", DataError, r"y\[1\] is nan"),
    ("None label", ["a", None] * 15, "binary", DataTypeError, "y: labels of mixed types"),
    ("mixed", np.array(["a", 1] * 15, object), "binary", DataTypeError, "y: labels of mixed"),
    ("nan object", np.array([1.0, np.nan] * 15, object), "binary", DataError, "y: nan is not"),
    ("NaT", np.array(["2020", "NaT"] * 15, "M8[D]"), "binary", DataError, "y: .*NaT.* not a"),
    ("complex label", [1j, 2] * 15, "binary", DataTypeError, "y: complex labels have no order"),
    ("short labels", LABELS[:7], "binary", DataError, "y: has 7 entries but X has 30 rows"),
]
LOSS = {"real": "squared_error", "counts": "poisson", "binary": "log_loss"}


@pytest.mark.parametrize(
    ("name", "bad", "kind", "error", "message"), BAD_Y, ids=[r[0] for r in BAD_Y]
)
def test_bad_y(name, bad, kind, error, message):
    loss = LOSS[kind]
    if isinstance(error, tuple):
        with pytest.raises(error, match=message):
            schuss.fit(X, bad, loss=loss)
        return
    refuses(error, message, lambda: schuss.fit(X, bad, loss=loss))
    refuses(error, message, lambda: schuss.gradient(X, bad, np.zeros(D), loss=loss))
    good = {"real": Y, "counts": Y**2, "binary": LABELS}[kind]
    if kind != "binary":  # whose validation labels are compared with the training labels
        refuses(
            error, "^validation " + message, lambda: schuss.fit(X, good, loss, validation=(X, bad))
        )


BAD_WEIGHTS = [
    ("short", W[:5], DataError, ": has 5 entries but X has 30 rows"),
    ("negative", spoiled(W, 3, -1.0), DataError, r"\[3\] is -1\.0: expected numbers >= 0"),
    ("nan", spoiled(W, 3, np.nan), DataError, r"\[3\] is nan"),
    ("inf", spoiled(W, 3, np.inf), DataError, r"\[3\] is inf"),
    ("zeros", np.zeros(N), DataError, ": all weights are zero"),
    ("matrix", X, DataError, r": expected one dimension, got shape \(30, 3\)"),
    ("scalar", 2.0, DataError, r": expected one dimension, got shape \(\)"),
    ("text", ["a"] * N, DataTypeError, ": dtype <U1 is not accepted"),
]


@pytest.mark.parametrize(
    ("name", "bad", "error", "message"), BAD_WEIGHTS, ids=[r[0] for r in BAD_WEIGHTS]
)
def test_bad_sample_weights(name, bad, error, message):
    message = f"^sample_weight{message}"
    refuses(error, message, lambda: schuss.fit(X, Y, sample_weight=bad))
    refuses(error, message, lambda: schuss.gradient(X, Y, np.zeros(D), sample_weight=bad))
    refuses(error, message, lambda: schuss.batches(X, order="weighted", sample_weight=bad))
    given = (X, Y, bad)
    message = f"^validation {message[1:]}"
    refuses(error, message, lambda: schuss.fit(X, Y, validation=given))


# ---- Arguments of fit ----------------------------------------------------------------------
# (arguments, error, message); binary labels where the loss says so.

BINARY = {"loss": "log_loss"}
BAD_ARGUMENTS = [
    ({"loss": "hubber"}, InvalidArgument, "loss='hubber' is not known .*mean 'huber'"),
    ({"loss": 3}, InvalidType, "loss=3: expected a name"),
    ({"loss": None}, InvalidType, "loss=None: expected a name"),
    ({"loss": "huber(epsilon=-1)"}, InvalidArgument, "huber.*epsilon=-1: .*> 0"),
    ({"loss": "huber(eps=1)"}, InvalidArgument, "loss: huber.*eps"),
    ({"loss": schuss.rules.sgd()}, InvalidType, r"loss=schuss\.rules\.sgd.*schuss\.losses"),
    ({"batch_size": 0}, InvalidArgument, "batch_size=0: expected an integer .*>= 1"),
    ({"batch_size": -8}, InvalidArgument, "batch_size=-8: .*>= 1"),
    ({"batch_size": 31}, InvalidArgument, r"batch_size=31: .* 30 .*expected 1 \.\.\. 30 or 'full'"),
    ({"batch_size": 2.0}, InvalidType, r"batch_size=2\.0: expected an integer"),
    ({"batch_size": "32"}, InvalidArgument, "batch_size='32': expected an integer or 'full'"),
    ({"batch_size": None}, InvalidType, "batch_size=None: expected an integer"),
    ({"batch_size": True}, InvalidType, "batch_size=True: expected an integer"),
    ({"batch_size": float("nan")}, InvalidType, "batch_size=nan: expected an integer"),
    ({"batch_size": 25, "validation": 0.5}, InvalidArgument, "batch_size=25: .* 15 training rows"),
    ({"learning_rate": 0}, InvalidArgument, "learning_rate=0: .*> 0"),
    ({"learning_rate": -0.1}, InvalidArgument, r"learning_rate=-0\.1: .*> 0"),
    ({"learning_rate": float("nan")}, InvalidArgument, "learning_rate=nan: .*finite"),
    ({"learning_rate": float("inf")}, InvalidArgument, "learning_rate=inf: .*finite"),
    ({"learning_rate": None}, InvalidType, "learning_rate=None: expected a .*number"),
    ({"learning_rate": [0.1, 0.2]}, InvalidType, r"learning_rate=\[0\.1, 0\.2\]: expected"),
    ({"learning_rate": "automatic"}, InvalidArgument, "learning_rate='automatic' is not known"),
    ({"learning_rate": "cosine(0.1)"}, InvalidArgument, "learning_rate: cosine.*steps"),
    ({"epochs": 0}, InvalidArgument, "epochs=0: .*>= 1"),
    ({"epochs": 1.5}, InvalidType, r"epochs=1\.5: expected an integer"),
    ({"epochs": None}, InvalidType, "epochs=None: expected an integer"),
    ({"rule": "adm"}, InvalidArgument, "rule='adm' is not known .*mean 'adamw?'"),
    ({"rule": "sgd(momentum=1)"}, InvalidArgument, "sgd.*momentum=1: .*< 1"),
    ({"rule": 0.9}, InvalidType, r"rule=0\.9: expected a name"),
    ({"alpha": -1}, InvalidArgument, "alpha=-1: .*>= 0"),
    ({"alpha": "big"}, InvalidType, "alpha='big': expected a .*number"),
    ({"alpha": float("nan")}, InvalidArgument, "alpha=nan: .*finite"),
    ({"l1_ratio": 1.5}, InvalidArgument, r"l1_ratio=1\.5: .*<= 1"),
    ({"l1_ratio": -0.5}, InvalidArgument, r"l1_ratio=-0\.5: .*>= 0"),
    ({"l1_ratio": 0.5, "alpha": 1, "rule": "adam"}, InvalidArgument, r"l1_ratio=0\.5: .*'adam'"),
    ({"class_weight": "balanced"}, InvalidArgument, "class_weight: only a classification loss"),
    (BINARY | {"class_weight": "even"}, InvalidType, "class_weight='even': expected None"),
    (BINARY | {"class_weight": 2}, InvalidType, "class_weight=2: expected None"),
    (BINARY | {"class_weight": {"maybe": 1}}, InvalidArgument, r"'maybe' is not a class; .*'no'"),
    (BINARY | {"class_weight": {"no": -1}}, InvalidArgument, r"class_weight\['no'\]=-1: .*>= 0"),
    (BINARY | {"class_weight": {"no": "1"}}, InvalidType, r"class_weight\['no'\]='1': expected"),
    (BINARY | {"class_weight": {"no": 0, "yes": 0}}, InvalidArgument, "class_weight=.*zero"),
    (
        BINARY | {"class_weight": {"no": 0}, "sample_weight": (LABELS == "no") * 1.0},
        DataError,
        "sample_weight and class_weight: all weights are zero",
    ),
    ({"fit_intercept": "no"}, InvalidType, "fit_intercept='no': expected True or False"),
    ({"drop_last": None}, InvalidType, "drop_last=None: expected True or False"),
    ({"order": "random"}, InvalidArgument, "order='random' is not known"),
    ({"order": "weighted"}, InvalidArgument, "order='weighted' needs weights"),
    ({"order": "stratified"}, InvalidArgument, "'stratified': y has 30 distinct values"),
    ({"order": 1}, InvalidType, "order=1: expected a name"),
    ({"accumulate": 0}, InvalidArgument, "accumulate=0: .*>= 1"),
    ({"accumulate": 1.5}, InvalidType, r"accumulate=1\.5: expected an integer"),
    ({"clip_norm": 0}, InvalidArgument, "clip_norm=0: .*> 0"),
    ({"clip_norm": "1"}, InvalidType, "clip_norm='1': expected a .*number"),
    ({"average": -1}, InvalidArgument, "average=-1"),
    ({"average": "yes"}, InvalidType, "average='yes': expected"),
    ({"average": 0.5}, InvalidType, r"average=0\.5: expected"),
    ({"validation": 0.0}, InvalidArgument, r"validation=0\.0: .*> 0"),
    ({"validation": 1.0}, InvalidArgument, r"validation=1\.0: .*< 1"),
    ({"validation": 0.001}, InvalidArgument, r"validation=0\.001: holds out 0 of 30 rows"),
    ({"validation": "x"}, InvalidType, r"validation='x': expected a fraction .*\(X, y\)"),
    ({"validation": True}, InvalidType, "validation=True: expected a fraction"),
    ({"validation": (X,)}, InvalidArgument, "validation: expected a fraction.*got 1 parts"),
    ({"validation": (X, Y[:4])}, DataError, "validation y: has 4 entries but .*30 rows"),
    ({"validation": (X[:, :2], Y)}, DataError, "validation X: has 2 columns, X has 3"),
    (
        BINARY | {"validation": (X, ["maybe"] * N)},
        DataError,
        r"validation y: label 'maybe' was not among the classes \['no', 'yes'\]",
    ),
    ({"evaluate": "ful"}, InvalidArgument, "evaluate='ful' is not known .*mean 'full'"),
    ({"evaluate": None}, InvalidArgument, "evaluate=None is not known"),
    ({"record_every": 0}, InvalidArgument, "record_every=0: .*>= 1"),
    ({"updates": 0}, InvalidArgument, "updates=0: .*>= 1"),
    ({"updates": 2.5}, InvalidType, r"updates=2\.5: expected an integer"),
    ({"time_limit": 0}, InvalidArgument, "time_limit=0: .*> 0"),
    ({"time_limit": "1h"}, InvalidType, "time_limit='1h': expected a .*number"),
    ({"tol": -1e-3}, InvalidArgument, r"tol=-0\.001: .*>= 0"),
    ({"patience": 0}, InvalidArgument, "patience=0: .*>= 1"),
    ({"gtol": -1}, InvalidArgument, "gtol=-1: .*>= 0"),
    ({"gtol": float("inf")}, InvalidArgument, "gtol=inf: .*finite"),
    ({"init": 3}, InvalidType, r"init=3: expected a Result or a pair"),
    ({"init": (np.zeros(D),)}, InvalidType, "init=.*expected a Result or a pair"),
    ({"init": (np.zeros(5), 0.0)}, DataError, r"init: coef: has shape \(5,\) but X has 3 columns"),
    ({"init": ([0.0, np.nan, 0.0], 0.0)}, DataError, r"init: coef\[1\] is nan"),
    ({"init": (["a", "b", "c"], 0.0)}, DataTypeError, "init: coef: dtype <U1 is not accepted"),
    ({"init": (np.zeros(D), "a")}, InvalidType, "init: intercept='a': expected a .*number"),
    ({"init": (np.zeros(D), np.inf)}, InvalidArgument, "init: intercept=inf: .*finite"),
    ({"init": (np.zeros(D), np.zeros(2))}, InvalidType, "init: intercept=.*expected a .*number"),
    (
        {"init": (np.zeros(D), 1e300), "dtype": "float32"},
        InvalidArgument,
        r"init: intercept=1e\+300: too large for float32",
    ),
    ({"seed": -1}, InvalidArgument, "seed=-1: .*>= 0"),
    ({"seed": None}, InvalidType, "seed=None: expected an integer"),
    ({"seed": 0.5}, InvalidType, r"seed=0\.5: expected an integer"),
    ({"seed": np.random.default_rng(0)}, InvalidType, "seed=Generator.*expected an integer"),
    ({"dtype": "float16"}, InvalidArgument, "dtype='float16': expected None, 'float32'"),
    ({"dtype": int}, InvalidArgument, "dtype=<class 'int'>: expected None, 'float32'"),
    ({"dtype": "double precision"}, InvalidArgument, "dtype='double precision': expected"),
    ({"dtype": ["f4"]}, InvalidArgument, r"dtype=\['f4'\]: expected"),
    ({"backend": "nativ"}, InvalidArgument, "backend='nativ' is not known .*mean 'native'"),
    ({"backend": "cuda"}, BackendError, "backend='cuda' cannot be used: "),
    ({"backend": None}, InvalidType, "backend=None: expected a name"),
    ({"threads": 0}, InvalidArgument, "threads=0: .*>= 1"),
    ({"threads": 0, "backend": "reference"}, InvalidArgument, "threads=0: .*>= 1"),
    ({"threads": "two"}, InvalidType, "threads='two': expected an integer"),
    ({"asynchronous": True}, InvalidArgument, r"asynchronous=True: X is dense"),
    ({"comm": Chars()}, NotYet, "comm=<an object>: .*not supported yet"),
    ({"callbacks": 3}, InvalidType, "callbacks: 3 is not callable"),
    ({"callbacks": [print, "x"]}, InvalidType, "callbacks: 'x' is not callable"),
    ({"checkpoint": "run.ckpt"}, InvalidType, r"checkpoint='run\.ckpt': .*Checkpoint\(path"),
    ({"progress": "bar"}, InvalidType, "progress='bar': expected True, False or an object"),
    ({"progress": Chars()}, InvalidType, "progress=<an object>: expected True"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), BAD_ARGUMENTS, ids=[r[2][:40] for r in BAD_ARGUMENTS]
)
def test_bad_arguments_of_fit(arguments, error, message):
    y = LABELS if arguments.get("loss") == "log_loss" else Y
    refuses(error, message, lambda: schuss.fit(X, y, **arguments))


def test_a_split_that_leaves_nothing_to_train_on():
    lone = np.array(["no"] * (N - 1) + ["yes"])
    seeds = [seed for seed in range(40) if seed_holds_out(seed, N - 1)]
    assert 0 < len(seeds) < 40
    for seed in seeds[:3]:
        common = {"loss": "log_loss", "validation": 0.3, "seed": seed}
        refuses(
            DataError,
            "validation: all rows with the label 'yes' are held out",
            lambda: schuss.fit(X, lone, **common),  # noqa: B023
        )
        refuses(
            DataError,
            "class_weight='balanced': no training row has the label 'yes'",
            lambda: schuss.fit(X, lone, class_weight="balanced", **common),  # noqa: B023
        )


def seed_holds_out(seed: int, row: int) -> bool:
    """Whether a validation split by that seed holds the row out."""
    result = schuss.fit(
        np.eye(N)[:, row : row + 1],
        np.ones(N),
        batch_size=1,
        learning_rate=0.5,
        epochs=1,
        fit_intercept=False,
        validation=0.3,
        seed=seed,
    )
    return not result.coef.any()


def test_every_argument_of_fit_is_tested():
    import inspect

    tested = {name for arguments, _, _ in BAD_ARGUMENTS for name in arguments}
    assert tested == set(inspect.signature(schuss.fit).parameters) - {"X", "y"}


def test_an_argument_without_a_name_that_it_knows():
    with pytest.raises(TypeError, match="batchsize"):
        schuss.fit(X, Y, batchsize=3)


SCHEDULES = [
    (lambda t: np.full(t.shape, np.nan), "returned nan at step 0"),
    (lambda t: np.where(t < 7, 0.1, np.nan), "returned nan at step 7"),
    (lambda t: 0.5 - 0.1 * t, r"returned -0\.\d+ at step 6"),
    (lambda t: np.where(t == 23, np.inf, 0.1), "returned inf at step 23"),
    (lambda t: -1.0, r"returned -1\.0 at step 0"),
    (lambda t: np.ones(3), r"failed for steps 0 \.\.\. "),
    (lambda t: "fast", r"failed for steps 0 \.\.\. "),
    (lambda t: None, r"(failed for steps|returned nan at step) 0"),
    (lambda t: 0 * t, "is 0 at every step; nothing would train"),
    (lambda t: np.ones(9)[t.astype(int)], r"failed for steps 0 \.\.\. .*out of bounds"),
    (lambda t: 0.1 if t < 3 else 0.01, r"failed for steps 0 \.\.\. .*array of step numbers"),
]


@pytest.mark.parametrize(("schedule", "message"), SCHEDULES, ids=[r[1] for r in SCHEDULES])
def test_schedules_that_fail_name_the_step(schedule, message):
    message = "learning_rate=.*" + message
    refuses(
        InvalidArgument,
        message,
        lambda: schuss.fit(X, Y, learning_rate=schedule, batch_size=1, epochs=1),
    )
    refuses(
        InvalidArgument,
        message,
        lambda: schuss.minimize(
            lambda w, A, b: 0 * w,
            np.zeros(D),
            (X, Y),
            learning_rate=schedule,
            batch_size=1,
            epochs=1,
        ),
    )


def test_data_too_large_for_a_measured_rate():
    for big in (X * 1e200, (X * 1e25).astype("f4")):
        refuses(DataError, "learning_rate='auto': X is so large", lambda: schuss.fit(big, Y))  # noqa: B023


# ---- gradient, minimize, batches -----------------------------------------------------------

BAD_GRADIENT = [
    ({"coef": np.zeros(4)}, DataError, r"^coef: has shape \(4,\) but X has 3 columns"),
    ({"coef": 1.0}, DataError, r"^coef: has shape \(\)"),
    ({"coef": [0, np.inf, 0]}, DataError, r"^coef\[1\] is inf"),
    ({"coef": ["a", "b", "c"]}, DataTypeError, "^coef: dtype <U1 is not accepted"),
    ({"intercept": "a"}, InvalidType, "^intercept='a': expected a .*number"),
    ({"intercept": np.nan}, InvalidArgument, "^intercept=nan: .*finite"),
    ({"loss": "squared"}, InvalidArgument, "loss='squared' is not known"),
    ({"rows": []}, InvalidArgument, r"rows: expected a non-empty .*got shape \(0,\)"),
    ({"rows": [0, 30]}, InvalidArgument, r"rows\[1\] is 30: expected 0 \.\.\. 29"),
    ({"rows": [-1]}, InvalidArgument, r"rows\[0\] is -1: expected 0"),
    ({"rows": [0.5]}, InvalidArgument, "rows: expected .*integers, .*float64"),
    ({"rows": [True] * N}, InvalidArgument, "rows: expected .*integers, .*bool"),
    ({"rows": 3}, InvalidArgument, r"rows: expected .*got shape \(\)"),
    ({"rows": [[0], [1, 2]]}, DataError, "rows: cannot be read as an array"),
    ({"backend": "gpu"}, InvalidArgument, "backend='gpu' is not known"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), BAD_GRADIENT, ids=[r[2] for r in BAD_GRADIENT]
)
def test_bad_arguments_of_gradient(arguments, error, message):
    refuses(error, message, lambda: schuss.gradient(X, Y, **({"coef": np.zeros(D)} | arguments)))


def zero(w, A, b):
    return 0 * w


BAD_MINIMIZE = [
    ({"grad_fn": None}, InvalidType, "grad_fn=None: expected a function"),
    ({"loss_fn": 3}, InvalidType, "loss_fn=3: expected a function"),
    ({"grad_fn": lambda w, A, b: np.zeros(2)}, InvalidArgument, r"grad_fn: .*shape \(2,\).*\(3,\)"),
    ({"grad_fn": lambda w, A, b: None}, InvalidArgument, r"grad_fn: returned shape \(\) of object"),
    ({"grad_fn": lambda w, A, b: w * 1j}, InvalidArgument, "grad_fn: returned .*complex128"),
    ({"loss_fn": lambda w, A, b: w}, InvalidArgument, r"loss_fn: returned shape \(3,\)"),
    ({"loss_fn": lambda w, A, b: "low"}, InvalidArgument, "loss_fn: returned .*one real number"),
    ({"theta0": []}, DataError, r"theta0: is empty \(shape \(0,\)\)"),
    ({"theta0": ["a"]}, DataTypeError, "theta0: dtype <U1 is not accepted"),
    ({"theta0": [1j]}, DataTypeError, "theta0: dtype complex128 is not accepted"),
    ({"theta0": [0.0, np.nan, 1.0]}, DataError, r"theta0\[1\] is nan"),
    ({"theta0": [[1], [1, 2]]}, DataError, "theta0: cannot be read as an array"),
    ({"theta0": np.ma.masked_less([1.0, -1.0], 0)}, InvalidType, "theta0: masked arrays"),
    ({"data": X}, InvalidType, r"data: expected a tuple of arrays such as \(X, y\), got ndarray"),
    ({"data": ()}, InvalidType, "data: expected a tuple"),
    ({"data": None}, InvalidType, "data: expected a tuple .*got NoneType"),
    ({"data": (X, Y[:5])}, DataError, r"data\[1\]: has 5 rows, data\[0\] has 30"),
    ({"data": (X[:0], Y[:0])}, DataError, r"data\[0\]: expected at least one row, got .*\(0, 3\)"),
    ({"data": (X, 3.0)}, DataError, r"data\[1\]: expected at least one row, got shape \(\)"),
    ({"data": ([[1], [1, 2]],)}, DataError, r"data\[0\]: cannot be read as an array"),
    ({"batch_size": 0}, InvalidArgument, "batch_size=0: .*>= 1"),
    ({"batch_size": 31}, InvalidArgument, "batch_size=31: larger than the 30"),
    ({"learning_rate": "auto"}, InvalidArgument, "learning_rate='auto': minimize does not know"),
    ({"learning_rate": 0}, InvalidArgument, "learning_rate=0: .*> 0"),
    ({"epochs": 0}, InvalidArgument, "epochs=0: .*>= 1"),
    ({"rule": "sdg"}, InvalidArgument, "rule='sdg' is not known .*mean 'sgd'"),
    ({"order": "suffle"}, InvalidArgument, "order='suffle' is not known .*mean 'shuffle'"),
    ({"order": "weighted"}, InvalidArgument, "order='weighted' needs weights"),
    ({"drop_last": 3}, InvalidType, "drop_last=3: expected True or False"),
    ({"clip_norm": -1}, InvalidArgument, "clip_norm=-1: .*> 0"),
    ({"record_every": 0.5}, InvalidType, r"record_every=0\.5: expected an integer"),
    ({"updates": -5}, InvalidArgument, "updates=-5: .*>= 1"),
    ({"time_limit": -1}, InvalidArgument, "time_limit=-1: .*> 0"),
    ({"tol": 1e-3}, InvalidArgument, r"tol=0\.001: needs loss_fn"),
    ({"patience": -1}, InvalidArgument, "patience=-1: .*>= 1"),
    ({"gtol": "x"}, InvalidType, "gtol='x': expected a .*number"),
    ({"seed": "0"}, InvalidType, "seed='0': expected an integer"),
    ({"backend": "fast"}, InvalidArgument, "backend='fast' is not known"),
    ({"callbacks": [1]}, InvalidType, "callbacks: 1 is not callable"),
    ({"checkpoint": True}, InvalidType, "checkpoint=True: .*Checkpoint"),
    ({"progress": 5}, InvalidType, "progress=5: expected True"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), BAD_MINIMIZE, ids=[r[2][:40] for r in BAD_MINIMIZE]
)
def test_bad_arguments_of_minimize(arguments, error, message):
    good = {"grad_fn": zero, "theta0": np.zeros(D), "data": (X, Y)}
    refuses(error, message, lambda: schuss.minimize(**(good | arguments)))


BAD_BATCHES = [
    ({"X": 3}, DataError, r"X: expected at least one row, got shape \(\)"),
    ({"X": X[:0]}, DataError, r"X: expected at least one row, got shape \(0, 3\)"),
    ({"X": [[1], [1, 2]]}, DataError, "X: cannot be read as an array"),
    ({"X": np.ma.masked_less(X, 0)}, InvalidType, "X: masked arrays are not accepted"),
    ({"y": Y[:4]}, DataError, r"y: has shape \(4,\) but X has 30 rows"),
    ({"y": 3}, DataError, r"y: has shape \(\) but X has 30 rows"),
    ({"batch_size": 0}, InvalidArgument, "batch_size=0: .*>= 1"),
    ({"batch_size": 31}, InvalidArgument, "batch_size=31: larger"),
    ({"batch_size": "all"}, InvalidArgument, "batch_size='all': expected an integer or 'full'"),
    ({"order": "sorted"}, InvalidArgument, "order='sorted' is not known"),
    ({"order": "weighted"}, InvalidArgument, "order='weighted' needs weights"),
    ({"order": "stratified"}, InvalidArgument, "order='stratified' needs class labels"),
    ({"order": "stratified", "y": Y}, InvalidArgument, "'stratified': y has 30 distinct"),
    ({"seed": -1}, InvalidArgument, "seed=-1: .*>= 0"),
    ({"epoch": -1}, InvalidArgument, "epoch=-1: .*>= 0"),
    ({"epoch": 1.5}, InvalidType, r"epoch=1\.5: expected an integer"),
    ({"drop_last": "no"}, InvalidType, "drop_last='no': expected True or False"),
]


@pytest.mark.parametrize(
    ("arguments", "error", "message"), BAD_BATCHES, ids=[r[2][:40] for r in BAD_BATCHES]
)
def test_bad_arguments_of_batches(arguments, error, message):
    """At the call, not when the first batch is asked for."""
    refuses(error, message, lambda: schuss.batches(**({"X": X} | arguments)))


# ---- What works ----------------------------------------------------------------------------


def strided(array: np.ndarray) -> np.ndarray:
    wide = np.full((array.shape[0] * 2, *(2 * s for s in array.shape[1:])), np.nan, array.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def misaligned(array: np.ndarray) -> np.ndarray:
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    view = buffer[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned
    return view


def backwards(array: np.ndarray) -> np.ndarray:
    return array[::-1].copy()[::-1] if array.ndim == 1 else array[::-1, ::-1].copy()[::-1, ::-1]


def torch_tensor(array: np.ndarray):
    return pytest.importorskip("torch").tensor(array)


def data_frame(array: np.ndarray):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(array) if array.ndim == 2 else pandas.Series(array)


class Wrapped:
    """Gives its array to those who ask for one."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


class Exported:
    """Gives its array by DLPack alone."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array.copy()

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


FORMS = {
    "plain": lambda a: a.copy(),
    "read-only": lambda a: a,
    "Fortran": np.asfortranarray,
    "strided": strided,
    "negative strides": backwards,
    "misaligned": misaligned,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "list of lists": lambda a: a.tolist(),
    "matrix": lambda a: np.asmatrix(a) if a.ndim == 2 else a,
    "long double": lambda a: a.astype(np.longdouble),
    "data frame": data_frame,
    "torch": torch_tensor,
    "__array__": Wrapped,
    "DLPack": Exported,
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_array_gives_the_same_bits(form):
    make = FORMS[form]
    given = make(X), make(Y), make(W)
    before = [np.asarray(array).copy() for array in given if not isinstance(array, Exported)]
    common = {"epochs": 2, "batch_size": 7, "learning_rate": 0.05, "seed": 1}
    expected = schuss.fit(X, Y, sample_weight=W, validation=(X, Y, W), **common)
    found = schuss.fit(given[0], given[1], sample_weight=given[2], validation=given, **common)
    assert found.coef.tobytes() == expected.coef.tobytes()
    assert found.intercept == expected.intercept
    assert np.array_equal(found.history["validation_loss"], expected.history["validation_loss"])
    assert np.array_equal(found.predict(given[0]), expected.predict(X))
    a = schuss.gradient(*given[:2], expected.coef, 0.5, sample_weight=given[2])
    b = schuss.gradient(X, Y, expected.coef, 0.5, sample_weight=W)
    assert a[0] == b[0] and np.array_equal(a[1], b[1]) and a[2] == b[2]
    pairs = zip(
        schuss.batches(*given[:2], batch_size=4), schuss.batches(X, Y, batch_size=4), strict=True
    )
    assert all(np.array_equal(p[0], q[0]) and np.array_equal(p[1], q[1]) for p, q in pairs)
    theta = schuss.minimize(least_squares, given[1][:D] if form == "plain" else Y[:D], given[:2])[0]
    expected = schuss.minimize(least_squares, Y[:D], (X, Y))[0]
    np.testing.assert_allclose(theta, expected, rtol=1e-12)  # batches keep their own dtype
    kept = [np.asarray(array).copy() for array in given if not isinstance(array, Exported)]
    assert all(np.array_equal(a, b) for a, b in zip(before, kept, strict=True))


def least_squares(w, A, b):
    return A.T @ (A @ w - b) / len(b)


def test_nothing_a_caller_passes_is_written():
    """Not even where it could be, contiguous and of the right dtype."""
    arrays = [X.copy(), Y.copy(), W.copy(), np.ones(D), np.arange(5)]
    copies = [array.copy() for array in arrays]
    A, b, w, coef, rows = arrays
    weights = {"no": 1.0, "yes": 2.0}
    for order in ("shuffle", "weighted"):
        result = schuss.fit(
            A, b, batch_size=4, sample_weight=w, init=(coef, 1.0), order=order, average=True
        )
    assert not np.shares_memory(result.coef, coef)
    schuss.fit(A, LABELS, loss="log_loss", sample_weight=w, class_weight=weights, alpha=0.1)
    schuss.gradient(A, b, coef, rows=rows, sample_weight=w)
    schuss.minimize(least_squares, coef, (A, b), rule="adam", learning_rate=0.1)
    result.predict(A)
    result.score(A, b)
    for array, copy in zip(arrays, copies, strict=True):
        assert np.array_equal(array, copy)
    assert weights == {"no": 1.0, "yes": 2.0}


DTYPES = [
    ("float32", "float32"),
    (">f4", "float32"),
    ("float16", "float32"),
    ("float64", "float64"),
    ("longdouble", "float64"),
    ("int8", "float64"),
    ("uint16", "float64"),
    ("int64", "float64"),
    ("uint64", "float64"),
    ("bool", "float64"),
]


@pytest.mark.parametrize(("given", "used"), DTYPES)
def test_numbers_of_any_dtype_are_converted(given, used):
    A = np.random.default_rng(1).integers(0, 2, (N, D)).astype(given)
    y = np.arange(N).astype(given)
    result = schuss.fit(A, y, epochs=1, batch_size=8, learning_rate=0.01)
    stored = given if given == "float16" else used  # 16-bit rows are read as they are
    assert result.coef.dtype == used and result.config["dtype"] == stored
    for dtype in ("float32", "float64", np.float32, np.dtype("f8")):
        chosen = schuss.fit(A, y, epochs=1, batch_size=8, learning_rate=0.01, dtype=dtype)
        assert chosen.coef.dtype == dtype
        plain = schuss.fit(
            A.astype(dtype), y.astype(dtype), epochs=1, batch_size=8, learning_rate=0.01
        )
        assert plain.coef.tobytes() == chosen.coef.tobytes()
    assert result.predict(A).dtype == used


def test_y_follows_the_dtype_of_x():
    result = schuss.fit(X.astype("f4"), Y, epochs=1)
    same = schuss.fit(X.astype("f4"), Y.astype("f4"), epochs=1)
    assert result.coef.dtype == np.float32 and np.array_equal(result.coef, same.coef)


LABEL_PAIRS = [
    [0, 1],
    [-1, 1],
    [False, True],
    [2.5, 7.0],
    ["no", "yes"],
    [b"n", b"y"],
    [datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)],
    [np.datetime64("2020-01-01"), np.datetime64("2021-01-01")],
    [(1, "a"), (1, "b")],
]


@pytest.mark.parametrize("pair", LABEL_PAIRS, ids=str)
def test_any_two_sortable_labels(pair):
    y = np.empty(N, dtype=object if isinstance(pair[0], (tuple, datetime.date)) else None)
    if y.dtype == object:
        y[:] = [pair[int(v > 1)] for v in Y]
    else:
        y = np.array(pair)[(Y > 1).astype(int)]
    result = schuss.fit(X, y, loss="log_loss", epochs=30)
    assert result.classes.tolist() == np.array(sorted(pair), dtype=y.dtype).tolist() or (
        list(result.classes) == sorted(pair)
    )
    assert result.score(X, y) > 0.8
    numbers = schuss.fit(X, (Y > 1).astype(int), loss="log_loss", epochs=30)
    assert numbers.coef.tobytes() == result.coef.tobytes()


@pytest.mark.parametrize("loss", ["squared_error", "log_loss", "poisson"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 1), (5, 1), (2, 7)])
def test_tiny_data(shape, loss, backend):
    A = np.random.default_rng(0).normal(size=shape)
    y = np.arange(shape[0]) % 2
    if loss == "log_loss" and shape[0] == 1:
        refuses(DataError, "got 1 ", lambda: schuss.fit(A, y, loss=loss, backend=backend))
        return
    for batch_size in (1, "full"):
        result = schuss.fit(A, y, loss=loss, batch_size=batch_size, backend=backend)
        assert np.isfinite(result.coef).all()
        assert result.stop_reason == "epochs"
    assert schuss.fit(A, y, loss=loss, backend=backend).config["batch_size"] == shape[0]


def test_default_batch_size_gives_way_to_small_data():
    assert schuss.fit(X[:5], Y[:5]).config["batch_size"] == 5
    assert schuss.fit(X, Y, validation=0.5).config["batch_size"] == 15
    assert [len(b) for b in schuss.batches(X[:5])] == [5]
    _, history = schuss.minimize(least_squares, np.zeros(D), (X[:5], Y[:5]), epochs=3)
    assert history["updates"].tolist() == [1, 2, 3]
    for call in (
        lambda: schuss.fit(X[:5], Y[:5], batch_size=32),
        lambda: schuss.batches(X[:5], batch_size=32),
        lambda: schuss.minimize(least_squares, np.zeros(D), (X[:5], Y[:5]), batch_size=32),
    ):
        refuses(InvalidArgument, "batch_size=32: larger than the 5", call)


def test_constant_columns_and_constant_targets():
    A = np.column_stack([X[:, 0], np.full(N, 0.1), np.zeros(N)])
    result = schuss.fit(A, np.full(N, 3.0), epochs=50)
    assert result.score(A, np.full(N, 3.0)) in (0.0, 1.0)
    assert result.predict(A) == pytest.approx(3.0, abs=0.2)
    assert schuss.fit(np.zeros((N, 2)), Y, epochs=1).coef.tolist() == [0, 0]


def test_numpy_numbers_are_numbers(tmp_path):
    """Also where they are stored: in models and checkpoints."""
    result = schuss.fit(
        X,
        Y,
        batch_size=np.int64(4),
        learning_rate=np.float32(0.01),
        epochs=np.int32(3),
        alpha=np.float32(0.01),
        accumulate=np.int8(2),
        clip_norm=np.float64(10),
        average=np.bool_(True),
        fit_intercept=np.bool_(True),
        drop_last=np.bool_(False),
        validation=np.float32(0.25),
        record_every=np.int64(2),
        tol=np.float32(0),
        patience=np.int64(9),
        gtol=np.float32(0),
        seed=np.uint8(3),
        threads=np.int64(1),
        checkpoint=Checkpoint(tmp_path / "run", every=np.int64(1)),
    )
    result.save(tmp_path / "model.npz")
    again = schuss.load(tmp_path / "model.npz")
    assert again.config == result.config and again.coef.tobytes() == result.coef.tobytes()
