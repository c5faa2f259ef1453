"""Memory that does not suffice is one line in every command that computes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stvideo.core import out_of_memory
from stvideo.core.errors import StvideoError
from stvideo.inference.inputs import for_each
from stvideo.settings import cli, memory_advice
from stvideo.settings.config import Config, load_config

TOO_MUCH = 2**50  # bytes; no address space of today holds them


def on_the_processor():
    torch.empty(TOO_MUCH, dtype=torch.uint8)


def in_numpy():
    np.empty(TOO_MUCH, dtype=np.uint8)


@pytest.mark.parametrize("allocate", [on_the_processor, in_numpy])
def test_what_the_libraries_raise_is_recognised(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as error:
        allocate()
    assert out_of_memory.is_out_of_memory(error.value)
    assert not out_of_memory.is_out_of_memory(RuntimeError("shapes differ"))
    assert not out_of_memory.is_out_of_memory(OSError(2, "No such file or directory"))


@pytest.mark.parametrize("allocate", [on_the_processor, in_numpy])
def test_a_command_that_runs_out_of_memory_ends_with_one_line(allocate, capsys):
    with pytest.raises(SystemExit) as end:
        cli.run(lambda argv: allocate(), [])
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.startswith("stvideo: error: memory is full (") and "smaller" in line


def test_a_path_that_the_system_does_not_take_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        cli.run(lambda argv: Path("x" * 5000).exists(), [])
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.endswith("File name too long")


def test_another_failure_is_left_as_it_is():
    with pytest.raises(RuntimeError, match="shapes differ"), out_of_memory.explained("doing", "less"):
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        (["evaluate.batch_size=8"], "use evaluate.batch_size=4"),
        (["data.batch_size=3"], "use evaluate.batch_size=1"),
        (["evaluate.batch_size=1"], "use train.precision=bf16, or data.workers=0"),
        (["evaluate.batch_size=1", "train.precision=bf16", "data.workers=0"], "use a model.reduction"),
    ],
)
def test_an_evaluation_says_which_setting_to_lower(settings, advice):
    with (
        pytest.raises(StvideoError, match=advice),
        out_of_memory.explained(*memory_advice.for_evaluation(load_config(None, settings))),
    ):
        on_the_processor()


def test_single_videos_name_the_video_and_go_on(capsys):
    def work(video):
        if video.name == "large.mp4":
            on_the_processor()

    videos = [Path("small.mp4"), Path("large.mp4"), Path("last.mp4")]
    assert for_each(videos, work, "done", Config()) == 1
    told = capsys.readouterr().err.splitlines()
    assert "memory is full (large.mp4: one clip of data.num_frames=8" in told[0] and "2 of 3 videos done" in told[1]
