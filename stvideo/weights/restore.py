"""A checkpoint back as a model together with everything that has to go with it: classes and preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.models.base import Backbone
from stvideo.settings.config import Config, load_config
from stvideo.weights.factory import default_classes, rebuild, saved_preprocessing
from stvideo.weights.reading import Checkpoint, read_checkpoint


@dataclass
class Restored:
    """A model, the configuration that it is used with, the file that it is from, and lines worth showing."""

    model: Backbone
    config: Config
    path: Path
    notes: list[str] = field(default_factory=list)

    def check_classes(self, of_data: list[str]) -> None:
        """Refuse data whose classes are not those that the head was trained on, in that order.

        An upstream file has no class names; there, only their number can be compared.

        Raises:
            StvideoError: what differs.
        """
        own = self.model.classes
        if len(own) != len(of_data):
            raise StvideoError(
                f"{self.path}: the checkpoint has {len(own)} classes and the data {len(of_data)}; "
                "a head trained for other classes cannot be evaluated"
            )
        if own != of_data and own != default_classes(len(own)):
            place = next(i for i, (a, b) in enumerate(zip(own, of_data, strict=True)) if a != b)
            raise StvideoError(
                f"{self.path}: class {place} is {own[place]!r} in the checkpoint and {of_data[place]!r} in the data; "
                "give data.classes in the order of training"
            )


def restore(config_path: str | None, overrides: list[str], needs_data: bool = True) -> Restored:
    """Build the model of ``checkpoint=``; preprocessing comes from the checkpoint, overriding it warns.

    The configuration file says where the data is and how to evaluate. What the checkpoint knows better (its model and
    its preprocessing) is taken from the checkpoint, unless the command line says otherwise.

    Args:
        config_path: of a configuration file; None: the checkpoint's own configuration.
        overrides: ``key=value`` of the command line.
        needs_data: refuse a file that does not say which videos to measure it on, unless ``data.val`` does.

    Raises:
        StvideoError: no checkpoint given, or a damaged one, or one that does not fit the overrides.
    """
    of_model = [text for text in overrides if text.startswith("model.")]
    plain = [text for text in overrides if text not in of_model]
    config = load_config(config_path, plain)
    if not config.checkpoint:
        raise StvideoError("checkpoint= is missing: a run folder, a .safetensors file or an official TimeSformer file")
    checkpoint = read_checkpoint(config.checkpoint)
    path, own = Path(checkpoint.path), checkpoint.metadata.get("config")
    if config_path is None and own is not None:
        config = load_config(None, plain, base=own)
    elif config_path is None and needs_data and not config.data.val:
        raise StvideoError(f"{path}: the file does not say which videos it was trained on; give data.root and data.val")
    data, changed = config.data, {text.split("=", 1)[0].removeprefix("data.") for text in plain}
    changes: dict[str, Any] = {key: getattr(data, key) for key in ("num_frames", "img_size") if key in changed}
    if of_model:
        changes["reduction"] = _changed_reduction(checkpoint, of_model)
    model, _ = rebuild(checkpoint, **changes)
    notes = [f"{path}: {model.spec['name']}, step {model.metadata.get('step', '?')}"]
    saved = saved_preprocessing(checkpoint.path, model)
    if saved is None and config_path is None:
        data.num_frames = data.num_frames if "num_frames" in changed else model.num_frames
        data.img_size = data.img_size if "img_size" in changed else model.img_size[0]
        logger.warning(
            f"{path}: the file does not say how its input was prepared; using mean {data.mean}, std {data.std}, "
            f"sampling {data.sampling}, stride {data.stride}"
        )
    for key, (value, current) in saved.difference(data).items() if saved else ():
        if key in changed:
            logger.warning(f"data.{key}={current} overrides the checkpoint's {value}; its accuracy was not measured so")
            continue
        setattr(data, key, value)
        if config_path is not None:
            notes.append(f"data.{key}={value} as in the checkpoint, not {current} as in {config_path}")
    model.preprocessing = Preprocessing.from_config(data)
    return Restored(model, config, path, notes)


def run_folder_of(checkpoint: Path) -> Path | None:
    """Find the run folder that ``checkpoint`` (the run, one of its checkpoints, or a file inside) belongs to."""
    path = checkpoint.resolve()
    for folder in (checkpoint, path, *path.parents[:3]):
        if (folder / "log.jsonl").exists() and (folder / "checkpoints").is_dir():
            return folder
    return None


def _changed_reduction(checkpoint: Checkpoint, overrides: list[str]) -> dict[str, Any] | None:
    """Merge ``model.reduction...=`` of the command line over the checkpoint's reduction."""
    for text in overrides:
        key = text.split("=", 1)[0]
        if key.split(".")[1] != "reduction":
            raise StvideoError(f"{key}: the model comes from the checkpoint; only model.reduction can be changed")
    reduction = checkpoint.metadata.get("model", {}).get("reduction") or None
    return load_config(overrides=overrides, base={"model": {"reduction": reduction}}).model.reduction
