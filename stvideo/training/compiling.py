"""`train.compile`: torch.compile without a new graph for every keep rate."""

from __future__ import annotations

import os
import shutil
import sys

import torch
from torch import nn

from stvideo.core.errors import StvideoError
from stvideo.reduction.budget import limit_budgets

MOST_GRAPHS = 64
"""More than a run needs (keep rates times grids, training and evaluation), where torch gives up after eight."""


def compile_model(model: nn.Module) -> None:
    """Compile ``model`` in place at its first call.

    Token counts are constants of a graph, so each keep rate is a graph: rates that change while training (a schedule,
    any-budget draws) fall into few steps here.

    Raises:
        StvideoError: this machine has no compiler.
    """
    check_compiler()
    limit_budgets(model)
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, MOST_GRAPHS)
    model.compile()


def check_compiler() -> None:
    """Raise `StvideoError` unless the C++ compiler is here that torch.compile calls, for a GPU too."""
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise StvideoError(
            f"torch.compile needs a C++ compiler and finds no {name!r} here; install one (apt-get install g++), "
            "name another with CXX=, or set train.compile=false"
        )
