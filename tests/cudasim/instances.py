"""Instances of every kernel, for checks of how they compile: each type, loss, rule and shape."""

from __future__ import annotations

from schuss.backends.cuda.shapes import LONG_ROWS, SHAPES, Held
from schuss.formulas.losses import LOSSES, VECTOR_LOSSES
from schuss.formulas.rules import FORMULAS

STORED = ("float", "double", "bfloat16", "float16")
COMPUTED = ("float", "double")
INDEX = ("int32_t", "int64_t")
USUAL = Held(32, 2)


def _rows() -> list[str]:
    def gradient(stored: str, loss: str, shape: Held, norms: str = "false") -> str:
        return f"gradient<{stored}, {loss}, {shape.lanes}, {shape.packs}, {norms}>"

    def run(kernel: str, stored: str, loss: str, rule: str, shape: Held) -> str:
        return f"{kernel}<{stored}, {loss}, {rule}, {shape.lanes}, {shape.packs}>"

    shapes, losses = (*SHAPES, LONG_ROWS), LOSSES.names()
    made = [gradient(s, "log_loss", shape) for s in STORED for shape in shapes]
    made += [gradient(s, loss, USUAL, "true") for s in COMPUTED for loss in losses]
    made += [f"margin<{s}, {shape.lanes}, {shape.packs}>" for s in STORED for shape in shapes]
    for kernel in ("step", "descend"):
        made += [run(kernel, s, "log_loss", rule, USUAL) for s in COMPUTED for rule in FORMULAS]
        made += [run(kernel, "float", "log_loss", "sgd", shape) for shape in shapes]
        made += [run(kernel, "float", loss, "sgd", USUAL) for loss in losses]
    return list(dict.fromkeys(made))


def expressions(unit: str) -> list[str]:
    """Instances of the kernels of a unit of the sources."""
    losses, vectors = LOSSES.names(), VECTOR_LOSSES.names()
    made = {
        "rows": _rows(),
        "outputs": [
            *(f"{k}<{s}>" for k in ("outputs_margin", "outputs_gradient", "outputs_norms")
              for s in STORED),
            *(f"outputs_weigh<{t}, {loss}>" for t in COMPUTED for loss in losses),
            *(f"outputs_weigh_together<{t}, {loss}>" for t in COMPUTED for loss in vectors),
        ],
        "probe": [f"probe_{kernel}<0>" for kernel in ("launch", "barrier", "copy")],
        "samples": [
            *(f"gram<{s}>" for s in STORED),
            *(f"descend_samples<{s}, log_loss, {h.lanes}, {h.packs}>" for s in STORED
              for h in (USUAL, LONG_ROWS)),
            *(f"descend_samples<{t}, {loss}, 32, 2>" for t in COMPUTED for loss in losses[1:]),
            *(f"descend_serially<float, {loss}, 256, 1>" for loss in losses),
        ],
        "sparse": [
            *(f"sparse_gradient<{t}, {loss}, true>" for t in COMPUTED for loss in losses),
            *(f"sparse_margin<{t}>" for t in COMPUTED),
        ],
        "steps": [
            *(f"combine<{t}>" for t in COMPUTED),
            *(f"finish<{t}, {rule}>" for t in COMPUTED for rule in FORMULAS),
        ],
        "vectors": [
            *(f"apply<{t}, {rule}>" for t in COMPUTED for rule in FORMULAS),
            *(f"reduce<{t}>" for t in COMPUTED),
            *(f"{kernel}<{i}>" for kernel in ("permute", "mix") for i in INDEX),
        ],
    }  # fmt: skip
    return list(dict.fromkeys(made[unit]))
