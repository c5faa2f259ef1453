"""One description of how a clip becomes a tensor, the same in configurations and checkpoints."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvideo.core.errors import StvideoError
from stvideo.data.clips.preprocessing import CHOICE_OF_FRAMES, Preprocessing
from stvideo.settings.schema import DataConfig
from tests.properties import unhurried

OTHER = dict(
    mean=[0.1, 0.2, 0.3], std=[1, 1, 1], color_order="bgr", sampling="segment", num_frames=3, stride=4, target_fps=25.0,
    img_size=96, test_short_side=128,
)  # fmt: skip


def test_configuration_and_checkpoint_hold_the_same_description():
    config = DataConfig(**OTHER)
    own = Preprocessing.from_config(config)
    assert own.to_dict() == OTHER == json.loads(json.dumps(own.to_dict()))
    assert Preprocessing.from_dict(own.to_dict()) == own and hash(Preprocessing.from_config(config)) == hash(own)
    fresh = DataConfig()
    own.apply_to(fresh)
    assert fresh == config
    assert (own.clip_shape, own.test_size, own.test_share) == ((1, 3, 3, 96, 96), 128, 0.75)
    assert set(CHOICE_OF_FRAMES) <= set(Preprocessing.names())


def test_missing_keys_are_the_defaults():
    own = Preprocessing.from_dict({"num_frames": 4})
    assert own == replace(Preprocessing.from_config(DataConfig()), num_frames=4)
    assert own.difference(DataConfig()) == {"num_frames": (4, 8)}
    assert own.difference(own) == {}
    assert own.test_size == 224


def test_differences_name_every_key():
    difference = Preprocessing.from_dict(OTHER).difference(Preprocessing.from_dict({}))
    assert list(difference) == list(OTHER)
    assert difference["mean"] == ([0.1, 0.2, 0.3], [0.45, 0.45, 0.45])


def test_the_frames_of_a_clip():
    own = Preprocessing.from_dict({"num_frames": 2, "stride": 2})
    assert own.indices(60, 30.0, clip=0, num_clips=2).tolist() == [0, 3]
    assert own.indices(60, 30.0, clip=1, num_clips=2).tolist() == [56, 59]


def test_a_model_of_oblong_clips_reads_no_videos():
    own = Preprocessing.from_dict({"img_size": [64, 96]})
    assert own.clip_shape == (1, 3, 8, 64, 96)
    with pytest.raises(StvideoError, match=r"data\.img_size=\[64, 96\]: clips read from videos are square"):
        _ = own.test_share


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, "expected a mapping of mean, .*, not NoneType"),
        ([1, 2], "expected a mapping of mean, .*, not list"),
        ({"mea": [0, 0, 0]}, "unknown key 'mea' .did you mean 'mean'"),
        ({3: 4}, "unknown key 3"),
        ({"mean": [0.5]}, r"data\.mean=\[0\.5\]: .* one per colour channel, three in all"),
        ({"mean": 0.5}, r"data\.mean=0\.5: expected finite numbers, one per colour channel"),
        ({"mean": [0.5, "a", 0.5]}, "expected finite numbers"),
        ({"mean": [0.5, float("nan"), 0.5]}, "expected finite numbers"),
        ({"std": [1, 0, 1]}, "expected numbers above 0"),
        ({"color_order": "gbr"}, "data.color_order=gbr: choose rgb or bgr"),
        ({"color_order": None}, "data.color_order=None: choose rgb or bgr"),
        ({"sampling": {}}, "unknown way of sampling"),
        ({"std": "abc"}, "expected numbers above 0"),
        ({"stride": 10**400}, "expected a number above 0"),
        ({"stride": "2"}, "data.stride=2: expected a number above 0"),
        ({"target_fps": 0}, "data.target_fps=0: expected a number above 0"),
        ({"num_frames": 2.5}, "data.num_frames=2.5: expected a whole number above 0"),
        ({"num_frames": True}, "data.num_frames=True: expected a whole number above 0"),
        ({"img_size": [1, 2, 3]}, r"data\.img_size=\[1, 2, 3\]: expected a whole number"),
        ({"img_size": []}, "expected a whole number"),
        ({"img_size": [[1], [1]]}, "expected a whole number"),
        ({"img_size": None}, "data.img_size=None: expected a whole number"),
        ({"test_short_side": 100}, "must not be below data.img_size=224"),
    ],
)
def test_a_wrong_description_is_one_line(values, message):
    with pytest.raises(StvideoError, match=message) as caught:
        Preprocessing.from_dict(values)
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


@unhurried
@given(st.dictionaries(st.sampled_from(Preprocessing.names()), JSON, max_size=3))
def test_whatever_a_file_says_is_a_description_or_one_line(values):
    try:
        own = Preprocessing.from_dict(values)
    except StvideoError as error:
        assert str(error).startswith("data.")
    else:
        assert Preprocessing.from_dict(own.to_dict()) == own and min(own.clip_shape) > 0
