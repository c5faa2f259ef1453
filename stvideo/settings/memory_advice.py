"""Which settings to change when memory is full, as text to copy to the command line."""

from __future__ import annotations

from stvideo.settings.config import Config


def for_training(config: Config) -> str:
    """Name the settings that make a training step need less memory, those first that leave the training the same."""
    data, train = config.data, config.train
    batch_size = data.batch_size
    others = ["model.grad_checkpointing=true"] if not config.model.grad_checkpointing else []
    others += ["train.precision=bf16"] if train.precision == "fp32" else []
    factor = next(
        (f for f in range(2, batch_size + 1) if batch_size % f == 0 and (batch_size // f) % data.clips_per_video == 0),
        0,
    )
    if factor:
        smaller = f"data.batch_size={batch_size // factor} train.accumulation_steps={factor * train.accumulation_steps}"
        others = [f"{smaller} (the same training)", "train.halve_batch_on_oom=true", *others]
    return ", or ".join(others or ["a smaller data.num_frames or data.img_size", "configs/accelerate/fsdp.yaml"])


def for_evaluation(config: Config) -> tuple[str, str]:
    """Return what an evaluation does with memory, and what to change, as `explained` takes them."""
    batch_size = config.evaluate.batch_size or config.data.batch_size
    if batch_size > 1:
        return f"evaluating, evaluate.batch_size={batch_size}", f"evaluate.batch_size={max(1, batch_size // 2)}"
    ways = ["train.precision=bf16"] if config.train.precision == "fp32" else []
    ways += ["data.workers=0"] if config.data.workers else []
    return "evaluating, evaluate.batch_size=1", ", or ".join([*ways, "a model.reduction that keeps fewer tokens"])


def for_single_videos(config: Config) -> tuple[str, str]:
    """Return the same for commands that run one clip at a time."""
    data = config.data
    return (
        f"one clip of data.num_frames={data.num_frames}, data.img_size={data.img_size}",
        "a model.reduction that keeps fewer tokens, a smaller data.num_frames, or the processor instead of a GPU "
        "(CUDA_VISIBLE_DEVICES=)",
    )
