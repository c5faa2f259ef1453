"""Study files: contestants, seeds and comparisons as data; every mistake in them shows before anything trains."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from stvideo.core.errors import StvideoError, nearest
from stvideo.core.files import exists
from stvideo.settings.config import Config, load_config, read_yaml
from stvideo.training.checks import check_training
from stvideo.weights.configured import build_model

KEYS = ("base", "seeds", "contestants", "compare", "launch")
SET_BY_STUDY = {
    "train.seed": "study.seeds gives the seeds",
    "output": "every run has its own folder in that of the study",
    "resume": "a study goes on by itself",
    "checkpoint": "a study evaluates what it trains",
}
MEASURED_ALIKE = {"data": ("root", "val", "classes"), "evaluate": ("views", "average")}
SECTIONS = {field.name for field in fields(Config) if is_dataclass(field.default_factory)}


@dataclass(frozen=True)
class Contestant:
    """One row of the table.

    Attributes:
        name: its run folders are called ``NAME-seedN``.
        title: its name for people.
        parent: the contestant whose best weights of the same seed it starts from; None: ``init`` decides.
        overrides: its settings over the base, as on a command line.
        config: these settings resolved.
    """

    name: str
    title: str
    parent: str | None
    overrides: list[str]
    config: Config


@dataclass(frozen=True)
class Study:
    """A comparison of contestants over seeds.

    Attributes:
        path: the study file.
        base: the configuration file that all contestants share.
        output: the folder of the study.
        seeds: of training, the same for every contestant.
        contestants: those that others start from come first.
        compare: pairs (A, B) whose difference A - B is reported.
        launch: the words before ``-m stvideo.train``, such as ``accelerate launch``.
    """

    path: Path
    base: str
    output: Path
    seeds: list[int]
    contestants: list[Contestant]
    compare: list[tuple[str, str]]
    launch: list[str]

    def folder_of(self, contestant: str, seed: int) -> Path:
        """Name the run folder of a contestant with one seed."""
        return self.output / f"{contestant}-seed{seed}"


def read_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file and check everything in it, down to the options of every reduction.

    Args:
        path: YAML with a section ``study``; other settings in it hold for all contestants.
        overrides: ``output=DIR``, and settings for all contestants over everything in the file.

    Raises:
        StvideoError: what is wrong, and where.
    """
    shared = read_yaml(path)
    study = shared.pop("study", None)
    if not isinstance(study, dict):
        raise StvideoError(f"{path}: not a study file: it needs study: {{base: CONFIG, contestants: {{NAME: ...}}}}")
    for key in study:
        if key not in KEYS:
            raise StvideoError(f"{path}: study: unknown key {key!r}{nearest(str(key), KEYS)}; it has {', '.join(KEYS)}")
    base = study.get("base")
    if not isinstance(base, str):
        raise StvideoError(f"{path}: study.base: expected a configuration file, e.g. configs/demo.yaml, not {base!r}")
    if not exists(base) and exists(path.parent / base):
        base = str(path.parent / base)
    outputs = [str(shared.pop("output", f"runs/{path.stem}"))]
    outputs += [text.removeprefix("output=") for text in overrides if text.startswith("output=")]
    given = [text for text in overrides if not text.startswith("output=")]
    load_config(base, given)  # so that a mistake in these is not told as one of a contestant
    _check_free("the command line", given)

    entries = _entries(path, study.get("contestants"))
    contestants = []
    for name in _parents_first(path, entries):
        settings = dict(entries[name])
        parent, title = settings.pop("from", None), settings.pop("title", None) or name
        own, where = [*as_overrides(shared), *as_overrides(settings)], f"{path}: {name}"
        _check_free(where, own, {"init": "from: says what it starts from"} if parent else {})
        config = _resolve(where, base, [*own, *given])
        contestants.append(Contestant(name, str(title), parent, [*own, *given], config))
    _check_measured_alike(path, contestants)
    launch = study.get("launch")
    return Study(
        path=path,
        base=base,
        output=Path(outputs[-1]),
        seeds=_seeds(path, study.get("seeds", [0])),
        contestants=contestants,
        compare=_pairs(path, study.get("compare"), list(entries)),
        launch=shlex.split(str(launch)) if launch else [sys.executable],
    )


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Write settings, nested in sections or with dotted keys, as the ``key=value`` of a command line."""
    found = []
    for key, value in settings.items():
        if key in SECTIONS and isinstance(value, dict):
            found += [f"{key}.{text}" for text in as_overrides(value)]
        else:
            found.append(f"{key}={json.dumps(value)}")
    return found


def _entries(path: Path, given: Any) -> dict[str, dict[str, Any]]:
    """Check the form of the contestants."""
    if not isinstance(given, dict) or not given:
        raise StvideoError(f"{path}: study.contestants: expected at least one NAME: {{settings}}, not {given!r}")
    for name, settings in given.items():
        if not re.fullmatch(r"\w[\w.-]*", str(name)):
            raise StvideoError(f"{path}: contestant {name!r}: a name has letters, digits, '_', '-' and '.' only")
        if not isinstance(settings, dict | None):
            raise StvideoError(f"{path}: {name}: expected settings, such as {{train.lr: 1e-3}}, not {settings!r}")
    return {str(name): settings or {} for name, settings in given.items()}


def _parents_first(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Order the contestants so that those that others start ``from`` come before them."""
    order: list[str] = []
    for name in entries:
        chain = [name]
        while (parent := entries[chain[-1]].get("from")) is not None:
            if parent not in entries:
                hint = nearest(str(parent), entries)
                raise StvideoError(f"{path}: {chain[-1]}: from: there is no contestant {parent!r}{hint}")
            if parent in chain:
                raise StvideoError(f"{path}: these start from one another: {' from '.join([*chain, parent])}")
            chain.append(parent)
        order += [each for each in reversed(chain) if each not in order]
    return order


def _resolve(where: str, base: str, overrides: Sequence[str]) -> Config:
    """Resolve the settings of a contestant; build its model without memory, so that every option is checked."""
    try:
        config = load_config(base, overrides)
        check_training(config)
        if not config.data.val:
            raise StvideoError("data.val is not set: a study evaluates what it trains")
        with torch.device("meta"):
            build_model(config.model, config.data, config.model.num_classes or 2)
    except StvideoError as error:
        raise StvideoError(f"{where}: {str(error).removeprefix('the command line: ')}") from None
    return config


def _check_free(where: str, overrides: Sequence[str], also: Mapping[str, str] = MappingProxyType({})) -> None:
    """Refuse settings that the study itself gives to every run."""
    for text in overrides:
        key = text.partition("=")[0]
        reason = SET_BY_STUDY.get(key) or also.get(key)
        if reason:
            raise StvideoError(f"{where}: {key} cannot be set here: {reason}")


def _check_measured_alike(path: Path, contestants: Sequence[Contestant]) -> None:
    first = contestants[0]
    for section, keys in MEASURED_ALIKE.items():
        for key, other in product(keys, contestants):
            here, there = (getattr(getattr(each.config, section), key) for each in (first, other))
            if here != there:
                raise StvideoError(
                    f"{path}: {section}.{key} is {here} for {first.name} and {there} for {other.name}; all contestants "
                    "are measured on the same videos in the same way"
                )


def _seeds(path: Path, given: Any) -> list[int]:
    is_list = isinstance(given, list) and all(type(seed) is int and seed >= 0 for seed in given)
    if not is_list or not given or len(set(given)) < len(given):
        raise StvideoError(f"{path}: study.seeds: expected different whole numbers, e.g. [0, 1, 2], not {given!r}")
    return list(given)


def _pairs(path: Path, given: Any, names: Sequence[str]) -> list[tuple[str, str]]:
    """Read the pairs to compare; by default everything is compared with the first contestant."""
    if given is None:
        return [(name, names[0]) for name in names[1:]]
    if not isinstance(given, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in given):
        raise StvideoError(f"{path}: study.compare: expected pairs of contestants, e.g. [[evit, dense]], not {given!r}")
    for name in [str(name) for pair in given for name in pair]:
        if name not in names:
            raise StvideoError(f"{path}: study.compare: there is no contestant {name!r}{nearest(name, names)}")
    return [(str(a), str(b)) for a, b in given]
