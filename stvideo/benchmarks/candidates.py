"""What can be compared: a model's name with changes, a configuration file, or a checkpoint.

timesformer_base_patch16_224                               a name of stvideo.list_models()
"timesformer_base_patch16_224 evit.keep_rate=0.7"          with a reduction, METHOD.OPTION=VALUE
"deit_small_patch16_224 stgm img_size=288"                 METHOD alone has its default options
+evit.keep_rate=0.5                                        the first one of the command line with this on top
configs/k400_stvit.yaml                                    a configuration (its weights are random here)
"configs/k400_evit.yaml model.reduction.evit.keep_rate=0.5"
runs/k400_stvit                                            a checkpoint: a run folder, a file, hf:OWNER/NAME
timm:deit_small_patch16_224                                timm's own model of that name, as timm runs it
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from stvideo.benchmarks.timm_model import PREFIX as TIMM
from stvideo.benchmarks.timm_model import TimmModel
from stvideo.core.errors import StvideoError, nearest
from stvideo.models.base import Backbone
from stvideo.models.registry import list_models, model_entry
from stvideo.reduction.apply import apply_reduction, reduction_options, remove_reduction
from stvideo.reduction.base import list_reductions
from stvideo.settings.config import load_config
from stvideo.weights.configured import model_arguments
from stvideo.weights.factory import create_model, load_model

SIZES = ("num_classes", "num_frames", "img_size")


@dataclass(frozen=True)
class Candidate:
    """One side of a comparison.

    Attributes:
        name: as the user wrote it, which may begin with a ``+``; for the tables.
        label: the same spelled out.
        source: a model name or a path.
        settings: ``key=value`` for the configuration, if ``source`` is one.
        arguments: for the model's constructor.
        reductions: method to options.
        dense: take every reduction out.
    """

    name: str
    label: str
    source: str
    settings: list[str] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)
    reductions: dict[str, dict[str, Any]] = field(default_factory=dict)
    dense: bool = False

    @property
    def is_config(self) -> bool:
        """Whether it is a configuration file."""
        return self.source.endswith((".yaml", ".yml"))

    def build(self, common: dict[str, Any]) -> Backbone:
        """Build the model, on the default device.

        Args:
            common: constructor arguments for all models, such as ``num_frames``; the candidate's own go before them.

        Raises:
            StvideoError: unknown name, setting or value, or an unreadable file.
        """
        arguments = {**common, **self.arguments}
        model: Backbone
        if self.source.startswith(TIMM):
            model = TimmModel(self.source.removeprefix(TIMM), arguments)
        elif self.is_config:
            config = load_config(self.source, self.settings)
            model = create_model(config.model.name, **{**model_arguments(config.model, config.data), **arguments})
        elif self.source in list_models():
            model = create_model(self.source, **arguments)
        else:
            model = load_model(self.source, **arguments)
        for method, options in self.reductions.items():
            present = reduction_options(model).get(method, {})
            apply_reduction(model, method, **{**present, **options})
        if self.dense:
            remove_reduction(model)
        return model


def parse_candidates(texts: Sequence[str]) -> list[Candidate]:
    """Read the candidates of a command line; the top of this file says how they are written.

    Raises:
        StvideoError: nothing to compare, or something that is no candidate.
    """
    candidates: list[Candidate] = []
    for text in texts:
        label = text
        if text.startswith("+"):
            if not candidates:
                raise StvideoError(f"{text}: a model that starts with + changes the first one, and there is none")
            label = f"{candidates[0].label} {text[1:].strip()}"
        candidates.append(_parse(text, label))
    if not candidates:
        raise StvideoError(
            "nothing to compare; example: python -m stvideo.benchmark deit_small_patch16_224 +evit.keep_rate=0.7"
        )
    return candidates


def dense_counterpart(candidate: Candidate, model: Backbone) -> Candidate | None:
    """Find the dense model to compare a reduced one with; None if it is dense or there is none.

    Args:
        candidate: a variant ``METHOD_MODEL``, a model with reductions, a configuration or a checkpoint.
        model: built from it.
    """
    known = list_models()
    if candidate.source not in known:
        named = f"{candidate.label}, dense"
        return replace(candidate, name=named, label=named, dense=True) if model.reductions else None
    dense = candidate.source.partition("_")[2]
    if dense not in known:
        dense = candidate.source
        return Candidate(dense, dense, dense, arguments=candidate.arguments) if model.reductions else None
    given = model.spec["arguments"] if model.reductions else candidate.arguments
    arguments = {key: value for key, value in given.items() if model.reductions or key in SIZES}
    return Candidate(dense, dense, dense, arguments=arguments)


def _parse(name: str, text: str) -> Candidate:
    # A path may hold spaces; otherwise split at spaces outside brackets, so that stgm.grid=[8, 4, 4] stays one word.
    words = [text] if Path(text).exists() else re.findall(r"(?:\[[^\]]*\]|\([^)]*\)|[^\s\[\(])+", text)
    if not words:
        raise StvideoError("an empty model; give a model's name, a configuration file or a checkpoint")
    candidate = Candidate(name, text, words[0])
    source, known, methods = candidate.source, list_models(), list_reductions()
    if source not in known and not source.startswith((TIMM, "hf:")) and not Path(source).exists():
        hint = "" if "/" in source or candidate.is_config else nearest(source, known)
        raise StvideoError(f"{source}: neither a model{hint} nor a file; see stvideo.list_models()")
    for change in words[1:]:
        key, equals, value = change.partition("=")
        method, _, option = key.partition(".")
        if method in methods and bool(option) == bool(equals):
            options = candidate.reductions.setdefault(method, {})
            if option:
                options[option] = _value(change, value)
        elif method not in methods and equals and candidate.is_config:
            candidate.settings.append(change)
        elif method not in methods and equals and not option:
            candidate.arguments[key] = _value(change, value)
        else:
            raise StvideoError(
                f"{text!r}: cannot read {change!r}{nearest(method, methods)}; a change is METHOD, "
                f"METHOD.OPTION=VALUE or ARGUMENT=VALUE, methods: {', '.join(methods)}"
            )
    if source in known and model_entry(source).reduction in candidate.reductions:
        # A variant takes the options of its own method as keywords.
        candidate.arguments.update(candidate.reductions.pop(str(model_entry(source).reduction)))
    return candidate


def _value(change: str, text: str) -> Any:
    try:
        return yaml.safe_load(text.replace("(", "[").replace(")", "]").replace("None", "null"))
    except yaml.YAMLError:
        raise StvideoError(f"cannot read the value of {change!r}; write lists as [3, 6, 9]") from None
