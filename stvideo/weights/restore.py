"""A checkpoint back as a model together with everything that has to go with it: classes and preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stvideo.core.errors import StvideoError
from stvideo.core.messages import logger
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.models.base import Backbone
from stvideo.reduction.apply import reduction_options
from stvideo.settings.config import Config, DataConfig, load_config
from stvideo.training.checkpoint import CHECKSUMS, check_checkpoint
from stvideo.weights.factory import load_model
from stvideo.weights.reading import read_checkpoint, resolve_checkpoint


@dataclass
class Restored:
    """A model, the configuration that it is used with, and what its checkpoint says."""

    model: Backbone
    config: Config
    metadata: dict[str, Any]
    path: Path
    notes: list[str] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the model's outputs."""
        return list(self.metadata["classes"])

    @property
    def reduction(self) -> dict[str, Any]:
        """The reductions that the model has now."""
        return reduction_options(self.model)

    def check_classes(self, of_data: list[str]) -> None:
        """Refuse data whose classes are not those that the head was trained on, in that order.

        An upstream file has no class names; there, only their number can be compared.

        Raises:
            StvideoError: what differs.
        """
        own = self.classes
        named = "versions" in self.metadata
        if len(own) != len(of_data):
            raise StvideoError(
                f"{self.path}: the checkpoint has {len(own)} classes and the data {len(of_data)}; "
                "a head trained for other classes cannot be evaluated"
            )
        if named and own != of_data:
            place = next(i for i, (a, b) in enumerate(zip(own, of_data, strict=True)) if a != b)
            raise StvideoError(
                f"{self.path}: class {place} is {own[place]!r} in the checkpoint and {of_data[place]!r} in the data; "
                "give data.classes in the order of training"
            )


def restore(config_path: str | None, overrides: list[str], needs_data: bool = True) -> Restored:
    """Build the model of ``checkpoint=``; preprocessing comes from the checkpoint, overriding it warns.

    The configuration file says where the data is and how to evaluate. What the checkpoint knows better (its model and
    its preprocessing) is taken from the checkpoint, unless the command line says otherwise. ``needs_data``: refuse a
    file that does not say which videos to measure it on, unless ``data.val`` does.

    Raises:
        StvideoError: no checkpoint given, or a damaged one, or one that does not fit the overrides.
    """
    given = load_config(config_path, [text for text in overrides if not text.startswith("model.")])
    if not given.checkpoint:
        raise StvideoError("checkpoint= is missing: a run folder, a .safetensors file or an official TimeSformer file")
    path = resolve_checkpoint(given.checkpoint)
    folder = path.resolve().parent
    if (folder / CHECKSUMS).exists():
        problem = check_checkpoint(folder)
        if problem:
            raise StvideoError(f"{folder}: damaged checkpoint: {problem}; evaluate another one of the run")
    saved = read_checkpoint(path).metadata
    own = saved.get("config")
    if needs_data and config_path is None and own is None and not given.data.val:
        raise StvideoError(f"{path}: the file does not say which videos it was trained on; give data.root and data.val")

    changes: dict[str, Any] = {}
    model_overrides = [text for text in overrides if text.startswith("model.")]
    if model_overrides:
        changes["reduction"] = _changed_reduction(saved, model_overrides)
    changed = {text.split("=", 1)[0] for text in overrides}
    for key in ("num_frames", "img_size"):
        if f"data.{key}" in changed:
            changes[key] = getattr(given.data, key)
    model, metadata = load_model(path, **changes)

    plain = [text for text in overrides if not text.startswith("model.")]
    config = load_config(config_path, plain, base=own if config_path is None else None)
    notes = [f"{path}: {metadata.get('model', {}).get('name')}, step {metadata.get('step', '?')}"]
    for key, (value, current) in _preprocessing(path, metadata, config.data).difference(config.data).items():
        if f"data.{key}" in changed:
            logger.warning(f"data.{key}={current} overrides the checkpoint's {value}; its accuracy was not measured so")
        else:
            setattr(config.data, key, value)
            if config_path is not None:
                notes.append(f"data.{key}={value} as in the checkpoint, not {current} as in {config_path}")
    return Restored(model, config, metadata, path, notes)


def _preprocessing(path: Path, metadata: dict[str, Any], data: DataConfig) -> Preprocessing:
    """Read how clips become the model's input; ``data`` where the file does not say; raises `StvideoError`."""
    if "preprocess" not in metadata:
        return Preprocessing.from_config(data)
    try:
        return Preprocessing.from_dict(metadata["preprocess"])
    except StvideoError as error:
        raise StvideoError(f"{path}: the file's description of its preprocessing is wrong: {error}") from None


def run_folder_of(checkpoint: Path) -> Path | None:
    """The run folder that ``checkpoint`` (the run, one of its checkpoints, or a file inside) belongs to."""
    path = checkpoint.resolve()
    for folder in (checkpoint, path, *path.parents[:3]):
        if (folder / "log.jsonl").exists() and (folder / "checkpoints").is_dir():
            return folder
    return None


def _changed_reduction(metadata: dict[str, Any], overrides: list[str]) -> dict[str, Any] | None:
    """The checkpoint's reduction with ``model.reduction...=`` of the command line over it."""
    for text in overrides:
        key = text.split("=", 1)[0]
        if key.split(".")[1] != "reduction":
            raise StvideoError(f"{key}: the model comes from the checkpoint; only model.reduction can be changed")
    reduction = metadata.get("model", {}).get("reduction") or None
    return load_config(overrides=overrides, base={"model": {"reduction": reduction}}).model.reduction
