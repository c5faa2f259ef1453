"""Versions of what a result depends on."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("stvideo", "torch", "torchvision", "accelerate", "timm", "decord", "av", "numpy", "safetensors")


def versions() -> dict[str, str]:
    """List the versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
