"""scikit-learn's own callbacks, new in its version 1.9, told of our epochs."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import is_classifier

from schuss.plan import Moment

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn 1.8

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands for scikit-learn's where there is none."""


__all__ = ["CallbackSupportMixin", "Epochs", "Watch"]


def is_watched(model: Any) -> bool:
    """Whether callbacks of scikit-learn are set on the model, or on one that holds it."""
    return hasattr(model, "_skl_callbacks") or hasattr(model, "_parent_callback_ctx")


class Watch:
    """One call of ``fit`` as a tree of tasks: epochs, of each class where they train apart.

    Parameters
    ----------
    model : estimator
    X : array-like
        What it is fitted to.
    y : array-like, optional
        Its targets, if there are any.
    sample_weight : array-like, optional
    """

    def __init__(self, model: Any, X: Any, y: Any = None, *, sample_weight: Any = None) -> None:
        self.model = model
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self.facts = {"estimator": model, "X": X, "y": y, "metadata": metadata}
        classes = len(np.unique(y)) if is_classifier(model) else 1
        self.apart = classes > 2 and model.multi_class == "ovr"
        self.context = model._init_callback_context(
            max_subtasks=classes if self.apart else model.max_iter,
            sequential_subtasks=not self.apart,
        )
        self.context.call_on_fit_task_begin(**self.facts)

    def end(self) -> None:
        """Tell that the model is fitted."""
        self.context.call_on_fit_task_end(**self.facts, reconstruction_attributes={})


class Epochs:
    """The epochs of one training.

    Parameters
    ----------
    watch : Watch
    model : estimator
        The copy that is trained.
    k : int
        Number of the class, where classes train apart.
    """

    def __init__(self, watch: Watch, model: Any, k: int) -> None:
        self.watch = watch
        self.model = model
        self.context = watch.context
        if watch.apart:
            self.context = watch.context.subcontext(
                "class", task_id=k, max_subtasks=watch.model.max_iter
            )
            self.context.call_on_fit_task_begin(**watch.facts)

    def begin(self) -> None:
        """Tell that an epoch begins."""
        self.task = self.context.subcontext("epoch")
        self.task.call_on_fit_task_begin(**self.watch.facts)

    def end(self, moment: Moment) -> bool:
        """Tell that it has ended; True if a callback wishes to stop."""
        wish = self.task.call_on_fit_task_end(
            **self.watch.facts,
            # One class does not make a model.
            reconstruction_attributes=None if self.watch.apart else self._as_fitted(moment),
        )
        return bool(wish)

    def finish(self) -> None:
        """Tell that the training has ended."""
        if self.watch.apart:
            self.context.call_on_fit_task_end(**self.watch.facts)

    def _as_fitted(self, moment: Moment) -> dict[str, Any]:
        shape = np.atleast_2d if is_classifier(self.model) else np.asarray
        made = {name: value for name, value in vars(self.model).items() if name.endswith("_")}
        made |= {"coef_": shape(moment.coef), "intercept_": np.atleast_1d(moment.intercept)}
        if "offset_" in made:
            made["offset_"] = 1 - made.pop("intercept_")
        return made
