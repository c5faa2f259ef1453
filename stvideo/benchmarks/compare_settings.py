"""What the command line of a comparison can say."""

from __future__ import annotations

from dataclasses import dataclass, field

from stvideo.benchmarks.entrants import FORMS, TRAINING_FORMS
from stvideo.core.errors import StvideoError, nearest
from stvideo.settings.command_settings import check_at_least, check_precision

MODES = ("forward", "train", "end_to_end")


@dataclass
class Settings:
    """See the help of `stvideo.benchmarks.compare`."""

    batch_sizes: list[int] = field(default_factory=lambda: [1, 2, 8])
    rounds: int | None = None
    mode: str = "forward"
    precision: str = "fp32"
    forms: list[str] = field(default_factory=lambda: ["eager"])
    reference: bool = False
    optimize: bool = False
    compile: bool = False
    device: str = "auto"
    threads: int | None = None
    num_frames: int | None = None
    img_size: int | None = None
    num_classes: int | None = None
    files: str | None = None
    workers: int | None = None
    output: str | None = None

    @property
    def training(self) -> bool:
        return self.mode == "train"

    def number_of_rounds(self) -> int:
        """As given, else ten; three where videos are read."""
        return self.rounds or (3 if self.mode == "end_to_end" else 10)

    def chosen_forms(self) -> list[str]:
        """The forms in which every model is raced, in the order of `FORMS`."""
        switches = {"textbook": self.reference, "optimized": self.optimize, "compiled": self.compile}
        return [form for form in FORMS if form in self.forms or switches.get(form)]

    def constructor_arguments(self) -> dict[str, int]:
        """What all models are built with."""
        given = {key: getattr(self, key) for key in ("num_frames", "img_size", "num_classes")}
        return {key: value for key, value in given.items() if value is not None}

    def check(self) -> None:
        """Raise `StvideoError` for a value that cannot be meant."""
        check_at_least(1, rounds=self.rounds, threads=self.threads, num_frames=self.num_frames)
        check_at_least(0, workers=self.workers)
        if not self.batch_sizes:
            raise StvideoError("batch_sizes=: name at least one number of clips, e.g. batch_sizes=1,8")
        for batch in self.batch_sizes:
            check_at_least(1, batch_sizes=batch)
        check_precision(self.precision)
        if self.mode not in MODES:
            raise StvideoError(f"mode={self.mode}: choose {', '.join(MODES)}{nearest(self.mode, MODES)}")
        for form in self.forms:
            if form not in FORMS:
                raise StvideoError(f"forms={form}: no such form{nearest(form, FORMS)}; there are: {', '.join(FORMS)}")
        if not self.chosen_forms():
            raise StvideoError(f"forms=: name at least one of {', '.join(FORMS)}")
        for form in self.chosen_forms():
            if self.training and form not in TRAINING_FORMS:
                raise StvideoError(f"mode=train: the form {form} does not train; forms are {', '.join(TRAINING_FORMS)}")
            if self.precision != "fp32" and form in ("exported", "onnx"):
                raise StvideoError(f"precision={self.precision}: the form {form} is float32; use precision=fp32")
        for name in ("files", "workers"):
            if getattr(self, name) is not None and self.mode != "end_to_end":
                raise StvideoError(f"{name}={getattr(self, name)}: videos are read with mode=end_to_end only")
