"""Out of memory: the step is computed again in smaller pieces whose gradients add up to the same step."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from accelerate import Accelerator
from torch import Tensor

from stvideo.core.errors import StvideoError
from stvideo.training.progress import Progress


class MicroBatches:
    """How many clips each process computes at once: a whole batch, until memory runs out on any of them.

    Processes must agree before they exchange anything, so gradients are averaged after the last backward pass here and
    not during it as DDP does; that is the price of `train.halve_batch_on_oom` where memory suffices.

    Args:
        progress: keeps the size, and with it the checkpoints do.
        batch_size: clips per process and batch.
        tell: called with a sentence whenever the size changes.

    Raises:
        StvideoError: under FSDP, where the processes exchange weights all the time.
    """

    def __init__(
        self, accelerator: Accelerator, progress: Progress, batch_size: int, tell: Callable[[str], None]
    ) -> None:
        if accelerator.is_fsdp2:
            raise StvideoError(
                "train.halve_batch_on_oom does not work under FSDP, whose processes cannot agree in the middle of a "
                f"step; if memory does not suffice use a smaller data.batch_size than {batch_size}"
            )
        self.accelerator, self.progress, self.batch_size, self.tell = accelerator, progress, batch_size, tell

    @property
    def size(self) -> int:
        """Clips computed at once."""
        return min(self.progress.micro_batch or self.batch_size, self.batch_size)

    def must_repeat(self, ran_out: bool) -> bool:
        """Tell whether some process ran out of memory; then all go on with pieces half as large. Collective.

        Raises:
            StvideoError: a piece is a single clip already.
        """
        flag = torch.tensor(float(ran_out), device=self.accelerator.device)
        if self.accelerator.reduce(flag, "sum").item() == 0:
            return False
        if self.size == 1:
            raise StvideoError(
                "memory is full even with one clip at a time; use model.grad_checkpointing=true, train.precision=bf16, "
                "a smaller data.num_frames or data.img_size, or a reduction that keeps fewer tokens"
            )
        self.progress.micro_batch = (self.size + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.tell(f"out of memory: the step is repeated with {self.size} clips at a time, and so are all steps to come")
        return True

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Average the gradients over the processes."""
        if self.accelerator.num_processes == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        work = [torch.distributed.all_reduce(gradient, async_op=True) for gradient in gradients]
        for handle in work:
            handle.wait()  # type: ignore[union-attr]
        torch._foreach_div_(gradients, self.accelerator.num_processes)
