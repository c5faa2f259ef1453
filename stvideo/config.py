"""Configuration: dataclasses, a YAML file over them, ``key=value`` overrides over that.

    config = load_config("configs/demo.yaml", ["train.lr=1e-3", "model.reduction.evit.keep_rate=0.5"])

An unknown key, a wrong type or an unreadable file raises `StvideoError` with one line.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from stvideo.errors import StvideoError, nearest


@dataclass
class ModelConfig:
    """Which network; ``num_frames`` and ``img_size`` come from `DataConfig`."""

    name: str = "timesformer_base_patch16_224"
    num_classes: int | None = None  # None: as many as data.classes names
    attention: str | None = None  # divided | joint | space; None: the model's own default
    drop_path_rate: float = 0.1
    drop_rate: float = 0.0  # dropout before the classification head
    weight_init: str = "published"  # published | scratch (learns positions quickly on small data)
    grad_checkpointing: bool = False
    reduction: dict[str, Any] | None = None  # method -> its options, applied in order
    args: dict[str, Any] = field(default_factory=dict)  # any other constructor argument, e.g. embed_dim


@dataclass
class DataConfig:
    """Where the videos are and how a clip is read from them."""

    root: str = ""  # folder that paths in the list files are relative to
    train: str | None = None  # list file, Kinetics CSV, Something-Something JSON, or folder of class folders
    val: str | None = None
    classes: str | None = None  # class names, one a line (or labels.json); None: from the annotations
    batch_size: int = 8  # clips per process
    workers: int = 4  # loader processes per training process
    sampling: str = "stride"  # stride (Kinetics) | segment (Something-Something)
    num_frames: int = 8
    stride: int = 32  # frames between samples, counted at target_fps
    target_fps: float = 30.0
    img_size: int = 224
    decoder: str = "auto"  # auto | decord | pyav | torchcodec
    timeout: float = 60.0  # seconds one video may take to decode before it counts as unreadable
    max_unreadable: float = 0.05  # training stops above this share of unreadable videos
    short_side: list[int] = field(default_factory=lambda: [256, 320])  # training: drawn from this range, pixels
    test_short_side: int | None = None  # testing: shorter side before cropping; None: img_size, so all of it is seen
    random_resized_crop: list[float] | None = None  # training: area range, e.g. [0.08, 1.0]; replaces short_side
    flip: bool = True
    color_jitter: float = 0.0
    rand_augment: str | None = None  # None, or magnitude and depth, e.g. "m7-n4"
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    clips_per_video: int = 1  # training: clips drawn from each opened video (repeated augmentation)
    mean: list[float] = field(default_factory=lambda: [0.45, 0.45, 0.45])
    std: list[float] = field(default_factory=lambda: [0.225, 0.225, 0.225])
    color_order: str = "rgb"  # rgb | bgr (the released Something-Something TimeSformer weights)


@dataclass
class TrainConfig:
    """How the weights are learned. Every duration is in epochs unless its name says steps."""

    epochs: int = 15
    max_steps: int | None = None  # optimiser steps; ends the run early
    seed: int = 0
    optimizer: str = "adamw"  # adamw | sgd
    lr: float = 5e-4  # for a global batch of lr_batch_size clips if that is set, else as it stands
    lr_batch_size: int | None = None
    min_lr: float = 0.0
    weight_decay: float = 0.05
    momentum: float = 0.9
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    layer_decay: float | None = None
    head_lr_scale: float = 1.0
    freeze: list[str] = field(default_factory=list)  # parts that are not trained, e.g. [patch_embed, blocks.0]
    schedule: str = "cosine"  # cosine | step | constant
    warmup_epochs: float = 0.0
    step_epochs: list[float] = field(default_factory=lambda: [11, 14])
    step_gamma: float = 0.1
    precision: str = "fp32"  # fp32 | bf16 | fp16
    accumulation_steps: int = 1  # batches per optimiser step
    clip_grad_norm: float | None = None
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    teacher: str | None = None  # checkpoint of a (dense) model to distil from
    distill_weight: float = 1.0
    distill_temperature: float = 1.0
    checkpoint_every_steps: int | None = None  # besides the one at the end of every epoch
    keep_checkpoints: int = 2
    eval_every_epochs: int = 1
    log_every_steps: int = 10
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    compile: bool = False
    max_bad_steps: int = 20  # consecutive steps with a gradient that is not finite, before the run stops
    process_timeout_minutes: float = 30.0  # how long the processes wait for one another before all of them stop


@dataclass
class EvalConfig:
    """How a checkpoint is measured."""

    views: str = "1x3"  # clips x crops per video
    batch_size: int | None = None  # clips per process and forward pass; None: data.batch_size
    during_training: str = "1x1"  # views of the evaluation after each epoch


@dataclass
class VisualizeConfig:
    """What `stvideo.visualize` draws."""

    outputs: list[str] = field(default_factory=lambda: ["png", "mp4", "html"])  # any of png, mp4, gif, html
    columns: int = 8  # frames across the sheet
    layer: int | None = None  # reduction layer that the overlay video shows; None: the last one that reduces
    video_side: int = 1280  # pixels; overlays of larger videos are scaled down to this longer side
    max_clips: int = 100  # model runs per overlay video; longer videos are covered with gaps


@dataclass
class PredictConfig:
    """What `stvideo.predict` does besides naming classes."""

    views: str = "1x3"  # clips x crops per video, their softmax scores averaged
    window_seconds: float | None = None  # timeline: length of a window; None: what a clip of the model spans
    hop_seconds: float | None = None  # timeline: from one window to the next; None: half a window
    features: str | None = None  # clip | frame | token | map: save these features instead of naming classes
    feature_format: str = "npz"  # npz | safetensors


@dataclass
class Config:
    """Everything a command can be told."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvalConfig = field(default_factory=EvalConfig)
    visualize: VisualizeConfig = field(default_factory=VisualizeConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    init: str | None = None  # PATH | timm:NAME: start from weights, the head may differ
    resume: str = "auto"  # auto | PATH | never
    checkpoint: str | None = None  # what evaluate, predict and visualize use
    top_k: int = 5  # classes that predict and visualize name per video
    output: str = "runs/run"


def load_config(
    path: str | Path | None = None, overrides: Sequence[str] = (), base: dict[str, Any] | None = None
) -> Config:
    """Read ``path`` (YAML) and ``overrides`` (``a.b=value``) over the defaults, or over ``base``.

    Args:
        base: a configuration as nested dictionaries, such as the one in a checkpoint.

    Raises:
        StvideoError: the file is missing or not YAML, or a key or a type is wrong.
    """
    config: Any = OmegaConf.structured(Config)
    layers: list[tuple[str, str | None, dict[str, Any]]] = []
    if base is not None:
        layers.append(("the checkpoint's configuration", None, copy.deepcopy(base)))
    if path is not None:
        layers.append((str(path), None, _read_yaml(Path(path))))
    layers += [("the command line", *_parse_override(text)) for text in overrides]
    for origin, key, layer in layers:
        _check_keys(layer, Config, "", origin)
        _spell_out_reduction(layer)
        try:
            value = None if key is None else OmegaConf.select(OmegaConf.create(layer), key)
            config = OmegaConf.merge(config, OmegaConf.create(layer))
            if OmegaConf.is_dict(value):  # a mapping given on the command line replaces the one in the file
                OmegaConf.update(config, str(key), value, merge=False)
        except OmegaConfBaseException as error:
            where = getattr(error, "full_key", None)
            reason = _in_plain_words(str(error).splitlines()[0])
            raise StvideoError(f"{origin}: {where + ': ' if where else ''}{reason}") from None
    try:
        return OmegaConf.to_object(config)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise StvideoError(f"configuration: {str(error).splitlines()[0]}") from None


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as plain dictionaries, lists and numbers."""
    return OmegaConf.to_container(OmegaConf.structured(config))  # type: ignore[return-value]


def to_yaml(config: Config) -> str:
    """The configuration as YAML that `load_config` reads back unchanged."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _in_plain_words(reason: str) -> str:
    """OmegaConf's reasons without its class names."""
    if "ListConfig" in reason:
        return "expected a list, e.g. [256, 320]"
    if "Incompatible value 'None'" in reason:
        return "must not be empty"
    return reason


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise StvideoError(f"{path}: no such configuration file; see configs/ for ready ones")
    try:
        loaded = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise StvideoError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise StvideoError(f"{path}: expected 'key: value' lines at the top level")
    return loaded  # type: ignore[return-value]


def _parse_override(text: str) -> tuple[str, dict[str, Any]]:
    """``"a.b=value"`` as its key and the nested mapping that it stands for."""
    if not re.match(r"^[A-Za-z_][\w.]*=", text):
        raise StvideoError(f"the command line: {text!r} is not of the form key=value, e.g. train.lr=1e-3")
    try:
        nested = OmegaConf.to_container(OmegaConf.from_dotlist([text]))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise StvideoError(f"the command line: cannot read {text!r}: {' '.join(str(error).split())}") from None
    return text.split("=", 1)[0], nested  # type: ignore[return-value]


def _spell_out_reduction(layer: dict[str, Any]) -> None:
    """``reduction: evit`` is short for ``reduction: {evit: {}}``, and so is ``evit: null`` inside it."""
    model = layer.get("model")
    if isinstance(model, dict) and isinstance(model.get("reduction"), str):
        model["reduction"] = {model["reduction"]: {}}
    if isinstance(model, dict) and isinstance(model.get("reduction"), dict):
        model["reduction"] = {name: options or {} for name, options in model["reduction"].items()}


def _check_keys(layer: dict[str, Any], schema: Any, prefix: str, origin: str) -> None:
    """Refuse keys that ``schema`` (a dataclass) does not have, naming the nearest one that it has."""
    known = {f.name: f for f in fields(schema)}
    for key, value in layer.items():
        if key not in known:
            hint = _nearest_key(str(key), known, prefix)
            raise StvideoError(f"{origin}: unknown key '{prefix}{key}'{hint}; known here: {', '.join(known)}")
        section = known[key].default_factory
        if is_dataclass(section):
            if not isinstance(value, dict):
                raise StvideoError(f"{origin}: '{prefix}{key}' is a section of settings, not a value")
            _check_keys(value, section, f"{prefix}{key}.", origin)


def _nearest_key(key: str, known: Iterable[str], prefix: str) -> str:
    """A hint at the key that was probably meant: one of this section, or one of that name in another."""
    sections: dict[str, Any] = {f.name: f.default_factory for f in fields(Config) if is_dataclass(f.default_factory)}
    for name, section in sections.items():
        if key in {f.name for f in fields(section)}:
            return f" (did you mean '{name}.{key}'?)"
    return nearest(prefix + key, [prefix + name for name in known])
