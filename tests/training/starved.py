"""The training command on a device with too little memory: ``python -m tests.training.starved LIMIT RANK ARGUMENTS``.

The model runs out of it, with torch's own error, as soon as process RANK computes more than LIMIT clips at once.
"""

import os
import sys

import torch

from stvideo import train
from stvideo.models.timesformer import TimeSformer
from stvideo.settings import cli


def starve(limit, seen=None, training=True):
    """A forward pass that raises what torch does, of two clips what cuBLAS does; ``seen`` gets the sizes that fit."""
    forward = TimeSformer.forward

    def starved(self, clip, *arguments, **options):
        if self.training == training and clip.device.type != "meta":
            if len(clip) > limit and len(clip) == 2:
                raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
            if len(clip) > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            if seen is not None:
                seen.append(len(clip))
        return forward(self, clip, *arguments, **options)

    return starved


if __name__ == "__main__":
    limit, rank, *arguments = sys.argv[1:]
    if os.environ.get("RANK", "0") == rank:
        TimeSformer.forward = starve(int(limit))
    cli.run(train.main, arguments)
