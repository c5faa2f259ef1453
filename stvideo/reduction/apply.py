"""Put reductions into a model, take them out, and ask for their losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from stvideo.core.errors import StvideoError
from stvideo.reduction.base import IN_BLOCKS, Reducible, Reduction, build_reduction, check_options, reduction_class
from stvideo.reduction.hooks import Outcome


def apply_reduction(model: nn.Module, name: str, **options: Any) -> nn.Module:
    """Put reduction ``name`` into ``model`` (in place); replaces one of the same name.

    Args:
        model: a model with reduction slots (ViT-like).
        name: one of `list_reductions`.
        options: the method's own keywords; see its class.

    Returns:
        The model.

    Raises:
        StvideoError: the model has no slots, the method or an option is unknown, or it does not fit.
    """
    if not isinstance(model, Reducible):
        raise StvideoError(f"{type(model).__name__} takes no token reductions: it is none of stvideo's models")
    host = model.reduction_host()
    check_options(name, options)
    reduction = build_reduction(name, host, reduction_class(name).resolve_options(model, options))
    _check_slots_free(reduction, [other for other in model.active_reductions() if other.name != name])
    reference = next(model.parameters())
    reduction.to(device=reference.device, dtype=reference.dtype)
    reduction.train(model.training)
    model.reductions[name] = reduction
    return model


def remove_reduction(model: nn.Module) -> nn.Module:
    """Make ``model`` dense again (in place), with the present values of the weights it shares. Returns the model."""
    if isinstance(model, Reducible):
        model.reductions.clear()
    return model


def reductions_of(model: nn.Module) -> dict[str, Reduction]:
    """Return the reductions in ``model`` by name, in the order in which they act; none for any other module."""
    return {r.name: r for r in model.active_reductions()} if isinstance(model, Reducible) else {}


def reduction_options(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return ``{method: options}`` of the reductions in ``model``, in order; what `stvideo.create_model` takes."""
    return {name: dict(reduction.options) for name, reduction in reductions_of(model).items()}


def has_losses(model: nn.Module) -> bool:
    """Tell whether training ``model`` needs its tokens (``return_tokens=True``) for losses of its reductions."""
    return any("losses" in reduction.hooks for reduction in reductions_of(model).values())


def reduction_losses(model: nn.Module, outcome: Outcome) -> dict[str, Tensor]:
    """Return every loss term of the reductions in ``model`` as ``{"method/term": scalar}``."""
    return {
        f"{name}/{term}": value
        for name, reduction in reductions_of(model).items()
        if "losses" in reduction.hooks
        for term, value in reduction.losses(outcome).items()
    }


def _check_slots_free(new: Reduction, others: Sequence[Reduction]) -> None:
    for other in others:
        clash = sorted(set(new.layers) & set(other.layers))
        shared = new.hooks & other.hooks & IN_BLOCKS or "replace" in new.hooks | other.hooks
        if clash and shared:
            raise StvideoError(f"{new.name}: block {clash[0]} is taken by {other.name!r}; give it other layers")


def calibrate(model: nn.Module, clips: Iterable[Tensor]) -> None:
    """Show clips (B, 3, T, H, W), normalised, to every reduction in ``model`` that wants to see some before use."""
    seen = list(clips)
    for reduction in reductions_of(model).values():
        if "calibrate" in reduction.hooks:
            reduction.calibrate(model, seen)
