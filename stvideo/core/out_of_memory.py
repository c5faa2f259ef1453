"""Recognise that memory, of a GPU or of the host, is full, and raise one line about it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from stvideo.core.errors import StvideoError

# What torch says, in its own error class on a GPU, and without one on a CPU, for CUDA itself, for cuBLAS and cuDNN.
SIGNS = ("can't allocate memory", "Cannot allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether ``error`` says that memory, of a GPU or of the host, did not suffice."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


@contextmanager
def explained(doing: str, use: str) -> Iterator[None]:
    """Raise ``StvideoError("memory is full (DOING); use USE")`` for what runs out of memory inside."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise StvideoError(f"memory is full ({doing}); use {use}") from None
