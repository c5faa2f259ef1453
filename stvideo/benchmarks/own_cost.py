"""What the reductions themselves cost: the forward pass cut into its named parts, timed on the real inputs.

Every `Reduction` module is a part of its own, so a new method is listed without doing anything for it; functions and
methods that carry `stvideo.core.parts.part` are listed inside it. A part's time is its own: what parts inside it took
is theirs.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stvideo.benchmarks.timing import synchronize
from stvideo.core.parts import listening
from stvideo.reduction.base import Reduction

BLOCKS = "blocks"
REST = "rest of the model"
OTHER = "other steps"
IN_ALL = "in all"


@dataclass(frozen=True)
class Step:
    """A part being run: its name, whether it is a `Reduction` module, and whether it runs for a reduction only."""

    name: str
    is_reduction: bool = False
    for_reduction: bool = False


Path = tuple[Step, ...]


@dataclass(frozen=True)
class Cost:
    """What one part costs in a forward pass.

    Attributes:
        owner: the reduction that it belongs to; "blocks" or "rest of the model" for everything else.
        part: its name; "in all" for the sum of an owner's parts.
        seconds: per forward pass, median over the passes.
        share: of the whole forward pass, median over the passes.
    """

    owner: str
    part: str
    seconds: float
    share: float


class Stopwatch:
    """Marks on the time line of the device: the clock on a CPU, events in the queue on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def mark(self) -> Any:
        """Now, or when the GPU gets here."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        """Between two marks, once the device has been waited for."""
        return begin.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - begin


def own_cost(model: nn.Module, run: Callable[[], Any], device: torch.device, passes: int = 5) -> list[Cost]:
    """The parts of a forward pass, reductions first.

    Args:
        model: eager; its `Reduction` modules are looked for.
        run: one forward pass of it; called once more to warm up.
        device: where it runs.
        passes: how often it is measured.

    Returns:
        One `Cost` per part and one per owner, which sum to the pass; empty for a model without any reduction.
    """
    run()
    scoring = _scoring_reductions(model)
    shares: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for _ in range(passes):
        times, total = _measure(model, run, device)
        seconds: dict[tuple[str, str], float] = defaultdict(float)
        for path, own in times.items():
            owner, part = _place(path, scoring)
            seconds[owner, part] += own
            seconds[owner, IN_ALL] += own
        seconds[REST, "embedding, norms, head"] = total - sum(times.values())
        for key, value in seconds.items():
            shares[key].append((value, value / total))
    costs = [Cost(*key, *map(statistics.median, zip(*values, strict=True))) for key, values in shares.items()]
    owners = list(dict.fromkeys(cost.owner for cost in costs))
    if set(owners) <= {BLOCKS, REST}:
        return []
    return sorted(
        costs,
        key=lambda cost: (_last(cost.owner, BLOCKS, REST), owners.index(cost.owner), _last(cost.part, OTHER, IN_ALL)),
    )


def _last(value: str, *late: str) -> int:
    """Sorts ``late`` behind everything else, in their order."""
    return late.index(value) + 1 if value in late else 0


def _scoring_reductions(model: nn.Module) -> str:
    """The reductions that ask blocks for by-products; of a model without such modules, just "reduction"."""
    reductions: Any = getattr(model, "reductions", {})
    return ", ".join(name for name, reduction in reductions.items() if reduction.needs) or "reduction"


def _measure(model: nn.Module, run: Callable[[], Any], device: torch.device) -> tuple[dict[Path, float], float]:
    """Seconds of every path of nested parts, those inside it left out, and of the whole pass."""
    watch, stack = Stopwatch(device), list[Step]()
    marks: list[tuple[Path, Any, Any]] = []

    @contextmanager
    def timed(step: Step) -> Iterator[None]:
        stack.append(step)
        begin = watch.mark()
        try:
            yield
        finally:
            marks.append((tuple(stack), begin, watch.mark()))
            stack.pop()

    with ExitStack() as hooks, listening(lambda name, own: timed(Step(name, for_reduction=own))):
        for module in model.modules():
            if isinstance(module, Reduction):
                hooks.enter_context(_around(module, lambda name=module.name: timed(Step(name, True, True))))  # type: ignore[misc]
        synchronize(device)
        begin = watch.mark()
        run()
        end = watch.mark()
        synchronize(device)
    times: dict[Path, float] = defaultdict(float)
    for path, start, stop in marks:
        seconds = watch.seconds(start, stop)
        times[path] += seconds
        if len(path) > 1:
            times[path[:-1]] -= seconds
    return times, watch.seconds(begin, end)


@contextmanager
def _around(module: nn.Module, enter: Callable[[], Any]) -> Iterator[None]:
    """Enter a context around every call of ``module``, by hooks that are taken off again."""
    opened: list[Any] = []

    def before(*_: Any) -> None:
        context = enter()
        context.__enter__()
        opened.append(context)

    def after(*_: Any) -> None:
        opened.pop().__exit__(None, None, None)

    handles = [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _place(path: Path, scoring: str) -> tuple[str, str]:
    """Whose part this is, and what it is called there."""
    for number, step in enumerate(path):
        if step.is_reduction:
            inner = [each.name for each in path[number + 1 :]] + [OTHER] * path[-1].is_reduction
            return step.name, " / ".join(inner)
        if step.for_reduction:  # what a block does for a reduction, such as scoring its tokens
            return scoring, " / ".join(each.name for each in path[number:])
    return BLOCKS, " / ".join(step.name for step in path)
