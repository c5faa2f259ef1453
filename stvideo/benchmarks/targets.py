"""What can be compared: a model's name with changes, a configuration file, or a checkpoint.

timesformer_base_patch16_224                               a name of stvideo.list_models()
"timesformer_base_patch16_224 evit.keep_rate=0.7"          with a reduction, METHOD.OPTION=VALUE
"deit_small_patch16_224 stgm img_size=288"                 METHOD alone has its default options
+evit.keep_rate=0.5                                        the first one of the command line with this on top
configs/k400_stvit.yaml                                    a configuration (its weights are random here)
"configs/k400_evit.yaml model.reduction.evit.keep_rate=0.5"
runs/k400_stvit                                            a run folder or a .safetensors or .pyth file
timm:deit_small_patch16_224                                timm's own model of that name, as timm runs it
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from stvideo.benchmarks.timm_models import TIMM, build_timm
from stvideo.core.errors import StvideoError, nearest
from stvideo.models.registry import list_models, model_entry
from stvideo.reduction.apply import apply_reduction, reduction_options, remove_reduction
from stvideo.reduction.base import list_reductions
from stvideo.settings.config import load_config
from stvideo.training.build import model_arguments
from stvideo.weights.factory import create_model, load_model

REDUCED_PREFIXES = ("evit_", "stvit_", "stvitr_")


@dataclass
class Target:
    """One side of a comparison.

    Attributes:
        label: what stands for all of it, as on the command line.
        written: the same as the user wrote it, which may begin with a ``+``; for the tables.
        source: a model name or a path.
        settings: ``key=value`` for the configuration, if that is what ``source`` is.
        arguments: for the model's constructor.
        reductions: method to options.
        dense: take every reduction out.
    """

    label: str
    source: str
    settings: list[str] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)
    reductions: dict[str, dict[str, Any]] = field(default_factory=dict)
    dense: bool = False
    written: str = ""

    @property
    def short(self) -> str:
        """As it was written."""
        return self.written or self.label

    def build(self, common: dict[str, Any]) -> nn.Module:
        """The model, on the default device.

        Args:
            common: constructor arguments for all models, such as ``num_frames``; the target's own go before them.

        Raises:
            StvideoError: unknown name, setting or value, or an unreadable file.
        """
        if self.source.startswith(TIMM):
            return build_timm(self.source.removeprefix(TIMM), {**common, **self.arguments})
        if self.source.endswith((".yaml", ".yml")):
            model = self._from_config(common)
        elif self.source in list_models():
            model = create_model(self.source, **{**common, **self.arguments})
        else:
            model, _ = load_model(self.source, **{**common, **self.arguments})
        for method, options in self.reductions.items():
            present = reduction_options(model).get(method, {})
            apply_reduction(model, method, **{**present, **options})
        return remove_reduction(model) if self.dense else model

    def _from_config(self, common: dict[str, Any]) -> nn.Module:
        config = load_config(self.source, self.settings)
        arguments = model_arguments(config.model, config.data)
        return create_model(config.model.name, **{**arguments, **common, **self.arguments})


def parse_targets(texts: Sequence[str]) -> list[Target]:
    """The targets of a command line; see the top of this file for how they are written.

    Raises:
        StvideoError: nothing to compare, or something that is no target.
    """
    targets: list[Target] = []
    for text in texts:
        if text.startswith("+"):
            if not targets:
                raise StvideoError(f"{text}: a target that starts with + changes the first one, and there is none")
            targets.append(_parse(f"{targets[0].label} {text[1:].strip()}"))
        else:
            targets.append(_parse(text))
        targets[-1].written = text
    if not targets:
        raise StvideoError(
            "nothing to compare; example: python -m stvideo.benchmark deit_small_patch16_224 +evit.keep_rate=0.7"
        )
    return targets


def dense_counterpart(target: Target, model: nn.Module) -> Target | None:
    """The dense model that a reduced ``target`` is to be compared with; None if it is dense or there is none."""
    if reduction_options(model):
        if target.source in list_models() and target.source == _spec_name(model):
            return Target(target.source, target.source, arguments=dict(target.arguments))
        if target.source in list_models():
            dense = _spec_name(model).removesuffix("_avg")  # STViT-DeiT pools, its dense DeiT has a class token
            return Target(dense, dense, arguments=model.spec["arguments"])  # type: ignore[index,arg-type]
        return Target(f"{target.label}, dense", target.source, target.settings, target.arguments, dense=True)
    for prefix in REDUCED_PREFIXES:
        dense = target.source.removeprefix(prefix)
        if dense != target.source and dense in list_models():
            return Target(dense, dense)
    return None


def _spec_name(model: nn.Module) -> str:
    return str(getattr(model, "spec", {}).get("name", ""))


def _parse(text: str) -> Target:
    words = [text] if Path(text).exists() else _words(text)  # a path may hold spaces
    if not words:
        raise StvideoError("an empty target; give a model's name, a configuration file or a checkpoint")
    source, *changes = words
    known = list_models()
    is_config = source.endswith((".yaml", ".yml"))
    is_timm = source.startswith(TIMM)
    if source not in known and not is_timm and not Path(source).exists():
        hint = "" if "/" in source or is_config else nearest(source, known)
        raise StvideoError(f"{source}: neither a model{hint} nor a file; see stvideo.list_models()")
    target = Target(text, source)
    for change in changes:
        key, has_value, value = change.partition("=")
        method, is_option, option = key.partition(".")
        if is_timm and method in list_reductions():
            raise StvideoError(
                f"{text!r}: timm's model takes no reductions; compare it with ours: "
                f'{source} "{source.removeprefix(TIMM)} {change}"'
            )
        if is_config and has_value and method not in list_reductions():
            target.settings.append(change)
        elif method in list_reductions() and ((is_option == "." and has_value) or change == method):
            options = target.reductions.setdefault(method, {})
            if is_option:
                options[option] = _value(change, value)
        elif has_value and not is_option:
            target.arguments[key] = _value(change, value)
        else:
            methods = list_reductions()
            raise StvideoError(
                f"{text!r}: cannot read {change!r}{nearest(change.split('.')[0], methods)}; a change is METHOD, "
                f"METHOD.OPTION=VALUE or ARGUMENT=VALUE, methods: {', '.join(methods)}"
            )
    return _variant_spelled_out(target)


def _variant_spelled_out(target: Target) -> Target:
    """A variant cannot take a second reduction beside its keywords, so its own method's options become keywords."""
    if target.source in list_models() and target.reductions:
        entry = model_entry(target.source)
        if entry.reduction in target.reductions:
            target.arguments.update(target.reductions.pop(entry.reduction))
    return target


def _words(text: str) -> list[str]:
    """Split at spaces outside brackets, so that ``stgm.grid=[8, 4, 4]`` stays one word."""
    return re.findall(r"(?:\[[^\]]*\]|\([^)]*\)|[^\s\[\(])+", text)


def _value(change: str, text: str) -> Any:
    try:
        return yaml.safe_load(text.replace("(", "[").replace(")", "]").replace("None", "null"))
    except yaml.YAMLError:
        raise StvideoError(f"cannot read the value of {change!r}; write lists as [3, 6, 9]") from None
