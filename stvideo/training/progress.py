"""How far a run is, and the averages since the last line of its log: what a checkpoint keeps besides the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class StepResult:
    """What one optimiser step did.

    Attributes:
        loss: sum of the losses of this process's clips.
        correct: how many of them were classified right (against the likelier label where two are mixed).
        clips: how many clips this process saw.
        substituted: how many of them stand in for an unreadable video.
        terms: sums over the clips of the loss terms that reductions add, by name.
        grad_norm: of the global gradient, before clipping.
        skipped: the gradient was not finite and the weights were left alone.
        videos: numbers of the videos that this process saw.
    """

    loss: float = 0.0
    correct: float = 0.0
    clips: float = 0.0
    substituted: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    grad_norm: float = 0.0
    skipped: bool = False
    videos: list[int] = field(default_factory=list)

    def add(self, loss: Tensor, terms: dict[str, Tensor], logits: Tensor, target: Tensor) -> None:
        """Count the clips of one forward pass, whose mean loss and loss terms these are."""
        hard = target if target.ndim == 1 else target.argmax(dim=1)
        self.loss += float(loss.detach()) * len(logits)
        self.correct += float((logits.detach().argmax(dim=1) == hard).sum())
        self.clips += len(logits)
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + float(value.detach()) * len(logits)


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: whole epochs done.
        step: optimiser steps done.
        videos: videos of the current epoch that are done, over all processes.
        evaluation_due: the epoch is done but its evaluation is not.
        best: highest top-1 so far, in per cent; -1 before the first evaluation.
        bad_steps: consecutive steps so far whose gradient was not finite.
        micro_batch: clips that a process computes at once since memory ran out; None: a whole batch.
        loss, correct, clips: sums over all clips seen since the last line of the log.
        terms: the same of each loss term of a reduction, by its name.
        substituted: clips of this epoch that stood in for an unreadable video.
    """

    epoch: int = 0
    step: int = 0
    videos: int = 0
    evaluation_due: bool = False
    best: float = -1.0
    bad_steps: int = 0
    micro_batch: int | None = None
    loss: float = 0.0
    correct: float = 0.0
    clips: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    substituted: float = 0.0

    def add(self, total: StepResult, videos: int) -> None:
        """Count one optimiser step, whose ``total`` over all processes took so many ``videos`` of the epoch."""
        self.step += 1
        self.videos += videos
        self.substituted += total.substituted
        self.bad_steps = self.bad_steps + 1 if total.skipped else 0
        if not total.skipped:
            self.loss += total.loss
            self.correct += total.correct
            self.clips += total.clips
            for name, value in total.terms.items():
                self.terms[name] = self.terms.get(name, 0.0) + value

    def take_averages(self) -> dict[str, float]:
        """Return mean loss, top-1 in per cent and mean loss terms since the last call, and start anew."""
        clips = self.clips or math.nan  # none if every step was skipped
        values = {"loss": self.loss / clips, "top1": 100.0 * self.correct / clips}
        values |= {name: value / clips for name, value in self.terms.items()}
        self.loss = self.correct = self.clips = 0.0
        self.terms = {}
        return values
