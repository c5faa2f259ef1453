"""Everything a command can be told: one dataclass per section of a configuration file.

Each field is a key (``train.lr``), its type is checked, its default is what holds when nothing is said.
`stvideo.settings.config` reads YAML files and ``key=value`` overrides into them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
    manifest: str | None = None  # what data_tools/verify.py wrote; None: manifest.csv in the root, if it is there
    batch_size: int = 8  # clips per process
    workers: int = 4  # loader processes per training process
    sampling: str = "stride"  # stride (Kinetics) | segment (Something-Something)
    num_frames: int = 8
    stride: int = 32  # frames between samples, counted at target_fps
    target_fps: float = 30.0
    img_size: int = 224
    decoder: str = "auto"  # auto | decord | pyav | torchcodec; PyAV reads what the chosen one is known to get wrong
    timeout: float = 60.0  # seconds one video may take to decode before it counts as unreadable
    max_unreadable: float = 0.05  # training stops above this share of unreadable videos
    leakage: str = "warn"  # warn | stop: training begins all the same, or not, where data.val has videos of data.train
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
    min_lr: float = 0.0  # where a cosine ends; scaled as lr is
    weight_decay: float = 0.05
    momentum: float = 0.9
    fused: bool = True  # one kernel for the whole update, where the device has one; false: torch's ordinary update
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
    halve_batch_on_oom: bool = False  # where memory runs out, repeat the step with smaller pieces of each batch
    clip_grad_norm: float | None = None
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    ema_device: str | None = None  # where the moving average waits, e.g. cpu to spare a GPU; None: with the model
    calibration_clips: int = 64  # training clips that reductions see before a fresh run, if they ask for any
    teacher: str | None = None  # checkpoint of a (dense) model to distil from
    distill_weight: float = 1.0
    distill_temperature: float = 1.0
    checkpoint_every_steps: int | None = None  # besides the one at the end of every epoch
    keep_checkpoints: int = 2
    eval_every_epochs: int = 1
    log_every_steps: int = 10
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    compile: bool = False  # torch.compile; keep rates of training then fall into few steps, each a graph of its own
    channels_last: bool = True  # convolutions that gain from this layout run in it; false: in torch's default layout
    max_bad_steps: int = 20  # consecutive steps with a gradient that is not finite, before the run stops
    process_timeout_minutes: float = 30.0  # how long the processes wait for one another before all of them stop


@dataclass
class EvalConfig:
    """How a checkpoint is measured."""

    views: str = "1x3"  # clips x crops per video, or a protocol: k400-1x3, ssv2-2x3, ... (stvideo.data.clips.protocols)
    average: str = "softmax"  # softmax | logits: what is averaged over the views of a video
    unreadable: str = "stop"  # stop | list: end at an unreadable video, or leave it out and say so
    batch_size: int | None = None  # clips per process and forward pass; None: data.batch_size
    during_training: str = "1x1"  # views of the evaluation after each epoch
    control: bool = True  # a sweep also measures random tokens kept at the cost of every reduced model


@dataclass
class VisualizeConfig:
    """What `stvideo.visualize` draws."""

    outputs: list[str] = field(default_factory=lambda: ["png", "mp4", "html"])  # any of png, mp4, html
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
    sweep: str | None = None  # evaluate at several budgets, e.g. keep_rate:1.0,0.7,0.5 or grid:8x4x4,8x2x2
    top_k: int = 5  # classes that predict and visualize name per video
    plugins: list[str] = field(default_factory=list)  # modules imported first, with reductions and models of one's own
    output: str = "runs/run"
