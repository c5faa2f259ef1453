"""Values that no run could use are refused before anything slow happens."""

import numpy as np
import pytest

from stvideo import StvideoError
from stvideo.evaluation.metrics import merge_views
from stvideo.settings.config import load_config
from stvideo.training.checks import check_config


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
        "evaluate.views=3",
    ],
)
def test_unusable_values_are_one_clear_line(override):
    key = override.split("=")[0]
    with pytest.raises(StvideoError, match=key) as caught:
        check_config(load_config(None, [override]))
    assert "\n" not in str(caught.value)


def test_the_defaults_are_usable():
    check_config(load_config())


def test_scores_that_are_not_numbers_are_no_accuracy():
    scores = np.full((2, 3), np.nan, np.float32)
    with pytest.raises(StvideoError, match="diverged"):
        merge_views(np.arange(2), np.zeros(2, int), np.zeros(2, int), scores, num_videos=2, num_views=1)
