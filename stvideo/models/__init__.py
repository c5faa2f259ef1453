"""Backbones. Every module of this package is imported here, so a new family registers its names by itself."""

import importlib
import pkgutil

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
    importlib.import_module(_module.name)
