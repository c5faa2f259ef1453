"""Which packages are installed, and whether they can be imported."""

from __future__ import annotations

import importlib
import platform
import sys
from importlib import metadata

from stvideo.diagnosis.finding import BROKEN, LESS, OK, Finding

GROUP = "packages"
# name to install -> (module, needed). What is not needed has something else in its place.
PACKAGES = {
    "stvideo": ("stvideo", True),
    "torch": ("torch", True),
    "torchvision": ("torchvision", True),
    "numpy": ("numpy", True),
    "av": ("av", True),
    "decord": ("decord", False),
    "torchcodec": ("torchcodec.decoders", False),
    "timm": ("timm", True),
    "accelerate": ("accelerate", True),
    "einops": ("einops", True),
    "omegaconf": ("omegaconf", True),
    "safetensors": ("safetensors.torch", True),
    "matplotlib": ("matplotlib", True),
    "tensorboard": ("tensorboard", False),
    "pytorchvideo": ("pytorchvideo", False),
}
ADVICE = {
    "decord": "nothing: PyAV reads videos; to use it, pip install decord (Linux x86-64 and Windows only)",
    "torchcodec": "nothing: PyAV reads videos; to use it, pip install torchcodec, apt-get install ffmpeg",
    "tensorboard": "pip install tensorboard, or set train.trackers=[]",
    "pytorchvideo": "pip install pytorchvideo; only `stvideo.benchmark data` reads videos with it, to compare",
}


def check_package(name: str) -> list[Finding]:
    """Installed, and importable in a process of its own."""
    module, needed = PACKAGES[name]
    advice = ADVICE.get(name, f"pip install --upgrade {name}")
    level = BROKEN if needed else LESS
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return [Finding(GROUP, name, level, "not installed", advice)]
    try:
        importlib.import_module(module)
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        return [Finding(GROUP, name, level, f"{version}, but it cannot be imported: {words}", advice)]
    return [Finding(GROUP, name, OK, version)]


def check_python() -> list[Finding]:
    """Python's own version, and the FFmpeg that comes with PyAV."""
    import av

    version = platform.python_version()
    old = sys.version_info < (3, 10)
    found = [Finding(GROUP, "python", BROKEN if old else OK, version, "install Python 3.10 or newer" if old else "")]
    libraries = ", ".join(f"{name} {'.'.join(map(str, v))}" for name, v in sorted(av.library_versions.items()))
    return [*found, Finding(GROUP, "FFmpeg inside PyAV", OK, libraries)]
