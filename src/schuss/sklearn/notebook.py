"""The line below a fitted model's diagram in a notebook: what trained, how far, and the loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from schuss.history import History

__all__ = ["trained"]

WIDTH, HEIGHT = 120, 18
STYLE = "font: 12px system-ui, sans-serif; color: #777; padding: 4px 0 0 6px"


def trained(model: Any) -> str:
    """HTML of a fitted model's training; nothing of one that is not fitted."""
    if not hasattr(model, "backend_") or not hasattr(model, "n_iter_"):
        return ""
    epochs = f"{model.n_iter_:.0f} epoch{'s' if model.n_iter_ != 1 else ''}"
    parts, curve = [f"trained by <b>{model.backend_}</b>", epochs], ""
    history = getattr(model, "history_", None)
    if history is not None and len(history):
        last, curve = history.last, sparkline(history)
        parts += [f"{last['seconds']:.2g} s", f"loss {last['train_loss']:.4g}"]
        if np.isfinite(last["validation_score"]):
            parts.append(f"validation score {last['validation_score']:.4g}")
    return f'<div style="{STYLE}">{" · ".join(parts)} {curve}</div>'


def sparkline(history: History) -> str:
    """The training loss by epoch as a small picture, on a logarithmic scale."""
    loss = np.log(np.maximum(history["train_loss"].astype(float), 1e-300))
    if loss.size < 2 or np.ptp(loss) == 0:
        return ""
    # At most as many points as the picture is wide.
    chosen = np.unique(np.linspace(0, loss.size - 1, min(loss.size, WIDTH)).astype(int))
    x = chosen / (loss.size - 1) * WIDTH
    y = (loss.max() - loss[chosen]) / np.ptp(loss) * (HEIGHT - 2) + 1
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" style="vertical-align: middle">'
        f"<title>training loss by epoch</title>"
        f'<polyline points="{points}" fill="none" stroke="#2a78b8" stroke-width="1.5"/></svg>'
    )
