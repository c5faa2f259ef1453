"""The toy methods as a plugin, for commands in processes of their own."""

from stvideo.reduction.base import _REGISTRY
from tests.reduction.toy_methods import TOYS

_REGISTRY.update(TOYS)
