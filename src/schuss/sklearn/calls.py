"""One call of ``fit`` or ``partial_fit``: what is trained is a copy of the model."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

from sklearn.base import is_classifier

from schuss.data.sparse import is_sparse
from schuss.signals import Asked

__all__ = ["apart", "learnt"]


def learnt(model: Any) -> dict[str, Any]:
    """What training has made of a model, by the names of the attributes."""
    return {k: v for k, v in vars(model).items() if k[-1] == "_" or k[0] == "_"}


@contextlib.contextmanager
def apart(model: Any, watch: Any = None) -> Iterator[Any]:
    """A copy of the model to train; in the end the model takes over what the copy has learnt.

    So a call that fails leaves the model as it was, and calls from several threads do not meet: the
    model is what one of them has made.

    Parameters
    ----------
    model : estimator
    watch : Watch, optional
        Tells scikit-learn's callbacks.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C has ended the training: the model has taken over what it had come to.
    """
    made = copy.copy(model)
    before = set(vars(made))
    made._watch, made._asked = watch, Asked()
    densify(made)
    asked = made._asked
    try:
        yield made
    except BaseException:
        asked.interrupt = True  # classes that train in other threads are to end as well
        raise
    del made._watch, made._asked
    for name in before - vars(made).keys():
        vars(model).pop(name, None)
    vars(model).update(learnt(made))
    if asked.interrupt:
        raise KeyboardInterrupt


def densify(model: Any) -> None:
    """Make the coefficients of ``sparsify`` an array again, in the shape they had."""
    coef: Any = getattr(model, "coef_", None)
    if is_sparse(coef):
        dense = coef.toarray()
        model.coef_ = dense if is_classifier(model) or len(dense) > 1 else dense[0]
