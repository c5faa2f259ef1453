"""Values that no run could use are refused before anything slow happens."""

import pytest

from stvideo import StvideoError
from stvideo.settings.checks import check_config
from stvideo.settings.config import load_config
from stvideo.training.checks import check_training


@pytest.mark.parametrize(
    "override",
    [
        "train.lr=nan",
        "train.lr=-1",
        "train.lr=0",
        "train.clip_grad_norm=inf",
        "train.weight_decay=nan",
        "train.seed=-1",
        "train.seed=9999999999999999999999",
        "train.layer_decay=0",
        "train.layer_decay=1.1",
        "train.label_smoothing=nan",
        "data.target_fps=nan",
        "data.std=[0,0,0]",
        "data.mean=[0.5]",
        "data.mean=[0,0,.nan]",
        "data.decoder=ffmpeg",
        "train.optimizer=adam",
    ],
)
def test_unusable_values_are_one_clear_line(override):
    key = override.split("=")[0]
    with pytest.raises(StvideoError, match=key) as caught:
        check_training(load_config(None, [override]))
    assert "\n" not in str(caught.value)


def test_the_defaults_are_usable():
    check_config(load_config())
    with pytest.raises(StvideoError, match=r"data\.train is not set"):
        check_training(load_config())
