"""Our estimators in skl2onnx, which turns scikit-learn's models into ONNX graphs."""

from __future__ import annotations

from typing import Any

from sklearn.linear_model import LogisticRegression

from schuss.errors import MissingPackage
from schuss.sklearn.estimators import SGDClassifier, SGDRegressor
from schuss.sklearn.oneclass import SGDOneClassSVM
from schuss.sklearn.options import is_multinomial

__all__ = ["register_onnx"]


def register_onnx() -> None:
    """Teach skl2onnx our estimators; it then converts them by themselves and within pipelines.

    Raises
    ------
    schuss.errors.MissingPackage
        If skl2onnx is not installed.

    Examples
    --------
    >>> import numpy as np, schuss.sklearn
    >>> model = schuss.sklearn.SGDRegressor().fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
    >>> def graph_of(model):
    ...     try:
    ...         schuss.sklearn.register_onnx()
    ...     except schuss.errors.MissingPackage:  # skl2onnx is not installed
    ...         return None
    ...     import skl2onnx
    ...     return skl2onnx.to_onnx(model, np.zeros((1, 1), np.float32))
    >>> graph = graph_of(model)
    """
    try:
        from skl2onnx import update_registered_converter
        from skl2onnx.common.shape_calculator import (
            calculate_linear_classifier_output_shapes,
            calculate_linear_regressor_output_shapes,
        )
        from skl2onnx.operator_converters.linear_regressor import convert_sklearn_linear_regressor
        from skl2onnx.operator_converters.sgd_oneclass_svm import convert_sklearn_sgd_oneclass_svm
        from skl2onnx.shape_calculators.sgd_oneclass_svm import (
            calculate_sgd_oneclass_svm_output_shapes,
        )
    except ImportError as error:
        raise MissingPackage(
            "schuss.sklearn.register_onnx needs skl2onnx: pip install skl2onnx"
        ) from error
    update_registered_converter(
        SGDRegressor,
        "SchussSGDRegressor",
        calculate_linear_regressor_output_shapes,
        convert_sklearn_linear_regressor,
    )
    update_registered_converter(
        SGDOneClassSVM,
        "SchussSGDOneClassSVM",
        calculate_sgd_oneclass_svm_output_shapes,
        convert_sklearn_sgd_oneclass_svm,
    )
    update_registered_converter(
        SGDClassifier,
        "SchussSGDClassifier",
        calculate_linear_classifier_output_shapes,
        _convert_classifier,
        options={
            "zipmap": [True, False, "columns"],
            "nocl": [True, False],
            "output_class_labels": [False, True],
            "raw_scores": [True, False],
        },
    )


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    """As scikit-learn's own; the multinomial model as the logistic regression that it is."""
    from skl2onnx.operator_converters.linear_classifier import convert_sklearn_linear_classifier
    from skl2onnx.operator_converters.sgd_classifier import convert_sklearn_sgd_classifier

    model = operator.raw_operator
    if not is_multinomial(model):
        convert_sklearn_sgd_classifier(scope, operator, container)
        return
    operator.raw_operator = LogisticRegression()
    for name in ("classes_", "coef_", "intercept_"):
        setattr(operator.raw_operator, name, getattr(model, name))
    convert_sklearn_linear_classifier(scope, operator, container)
