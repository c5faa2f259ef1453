"""How much a reduction keeps, changed on a built model: one set of weights, many budgets.

    set_budget(model, {"evit": {"keep_rate": 0.5}})       the next forward pass keeps half
    set_budget(model, {"stgm": {"grid": [8, 2, 2]}})      four semantic tokens per frame

A model trained with a range of budgets (``OPTION_range``, or the STGM's ``grids``) has seen all of them; any other
reduced model takes them too, at an accuracy that nobody trained for.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
from torch import nn

from stvideo.core.errors import StvideoError, nearest
from stvideo.core.seeding import NO_PROCESS, step_seed
from stvideo.reduction.apply import reductions_of

Budgets = Mapping[str, Mapping[str, Any]]
"""``{method: {option: value}}``, in the form of the reductions that `stvideo.create_model` takes."""

COMPILED_BUDGETS = 8
"""At most so many different budgets in training where each one is a graph to compile."""


def set_budget(model: nn.Module, budget: Budgets) -> nn.Module:
    """Change how much the reductions of ``model`` keep (in place); no weight is touched, so it costs milliseconds.

    The model then computes what one built with these options and the same weights would, `reduction_options` names
    them, and saving and loading keeps them. Training with a range of budgets draws from it as before.

    Args:
        model: a model with reductions in it.
        budget: for every method to change, new values of the options in its ``budgets``, e.g. ``keep_rate`` or
            ``tokens`` (``evit``), ``grid`` or ``num_semantic_tokens`` (``stgm``). Methods not named stay as they are.

    Returns:
        The model.

    Raises:
        StvideoError: a method that the model does not have, an option that needs other weights, or a bad value.
    """
    present = reductions_of(model)
    changes = []
    for name, options in budget.items():
        if name not in present:
            has = ", ".join(present) or "none"
            raise StvideoError(f"the model has no reduction {name!r}{nearest(name, present)}; it has: {has}")
        reduction = present[name]
        for key in options:
            if key not in reduction.budgets:
                known = ", ".join(reduction.budgets) or "nothing"
                raise StvideoError(f"{name}: {key} is no budget; what can change on a built model: {known}")
        changed = reduction.with_budget(options)
        changes.append((reduction, changed, reduction.attributes_for(changed)))
    for reduction, changed, attributes in changes:
        reduction.use_budget(changed, attributes)
    return model


def training_budgets(model: nn.Module, count: int = 5) -> list[dict[str, dict[str, Any]]]:
    """List the budgets that ``model`` was trained for, as `set_budget` takes them: what an evaluation can sweep.

    Args:
        model: a model, e.g. from a checkpoint, which says what it was trained for.
        count: how many values to spread over a range; grids are listed as they are.

    Returns:
        Every combination over the methods, in rising order of each; empty if it was not trained for any budget.
    """
    choices = {name: reduction.training_budgets(count) for name, reduction in reductions_of(model).items()}
    choices = {name: options for name, options in choices.items() if options}
    if not choices:
        return []
    return [dict(zip(choices, combination, strict=True)) for combination in product(*choices.values())]


def draw_budgets(model: nn.Module, seed: int, step: int) -> None:
    """Draw the budget of every reduction for optimiser step ``step`` of any-budget training.

    The draw is a function of ``seed`` and ``step`` alone, so that all processes agree and a resumed run repeats it.
    """
    generator = torch.Generator().manual_seed(step_seed(seed, step, NO_PROCESS))
    for reduction in reductions_of(model).values():
        reduction.draw_budget(generator)


def limit_budgets(model: nn.Module, levels: int = COMPILED_BUDGETS) -> None:
    """Let training use at most ``levels`` budgets per method: for compiled models, where each is another graph."""
    for reduction in reductions_of(model).values():
        reduction.budget_levels = levels
