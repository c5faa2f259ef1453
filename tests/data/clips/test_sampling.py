"""Frame indices: properties that hold for every video, and the published settings by hand."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stvideo.core.errors import StvideoError
from stvideo.data.clips.sampling import are_even, frame_indices, segment_indices, stride_indices, trimmed_range

videos = st.integers(1, 5000)
lengths = st.integers(1, 64)
rates = st.floats(1, 120)
seeds = st.integers(0, 2**32)


@given(videos, rates, lengths, st.integers(1, 64), st.integers(1, 10), st.data())
@pytest.mark.parametrize("sampling", ["stride", "segment"])
def test_indices_are_rising_inside_the_video_and_as_many_as_asked(sampling, frames, fps, count, stride, clips, data):
    clip = data.draw(st.integers(0, clips - 1))
    generator = data.draw(st.none() | seeds.map(np.random.default_rng))
    indices = frame_indices(
        frames, fps, sampling=sampling, num_frames=count, stride=stride, clip=clip, num_clips=clips, generator=generator
    )
    assert indices.shape == (count,)
    assert indices.dtype == np.int64
    assert indices.min() >= 0
    assert indices.max() < frames
    assert (np.diff(indices) >= 0).all()


@given(videos, rates, lengths, st.integers(1, 64), st.floats(0, 1))
def test_a_strided_span_does_not_depend_on_where_it_lies(frames, fps, count, stride, position):
    span = max(stride * count * fps / 30, 1)
    indices = stride_indices(frames, fps, count, stride, position=position)
    if frames > span + 1 and count > 1:
        assert indices[-1] - indices[0] == pytest.approx(span - 1, abs=1)
    if frames <= span:
        assert indices[0] == 0  # short videos are read from their start


@given(videos, lengths, seeds)
def test_every_random_segment_frame_lies_in_its_segment(frames, count, seed):
    drawn = segment_indices(frames, count, generator=np.random.default_rng(seed))
    first, last = segment_indices(frames, count, 0.0), segment_indices(frames, count, 1.0)
    assert (first <= drawn).all()
    assert (drawn <= last).all()
    middle = segment_indices(frames, count, 0.5)
    assert (first <= middle).all()
    assert (middle <= last).all()


def test_kinetics_setting_by_hand():
    # 300 frames at 30 fps, 8 at stride 32: a span of 256, the middle clip starts at 22
    assert stride_indices(300, 30, 8, 32).tolist() == [22, 58, 94, 131, 167, 204, 240, 277]
    # three clips start at 0, 22 and 44
    starts = [
        frame_indices(300, 30, sampling="stride", num_frames=8, stride=32, clip=clip, num_clips=3)[0]
        for clip in range(3)
    ]
    assert starts == [0, 22, 44]
    # at 15 fps the same seconds are half as many frames
    assert stride_indices(150, 15, 8, 32, position=0.0).tolist() == [0, 18, 36, 54, 72, 90, 108, 127]


def test_a_span_below_one_frame_is_one_frame():
    # one frame a second read at a stride of one thirtieth: found by the property above
    assert stride_indices(3, 1.0, 2, 1, position=0.5).tolist() == [1, 1]


def test_a_short_video_repeats_its_last_frame():
    assert stride_indices(10, 30, 8, 4).tolist() == [0, 4, 8, 9, 9, 9, 9, 9]


def test_something_something_setting_by_hand():
    # 41 frames, 8 segments of 5: bounds 0 5 10 ... 40, the middles cut to integers
    assert segment_indices(41, 8).tolist() == [2, 7, 12, 17, 22, 27, 32, 37]
    two = [frame_indices(41, 12, sampling="segment", num_frames=8, clip=clip, num_clips=2).tolist() for clip in (0, 1)]
    assert two == [[2, 7, 12, 17, 22, 27, 32, 37], [0, 5, 10, 15, 20, 25, 30, 35]]


@pytest.mark.parametrize("sampling", ["stride", "segment"])
@pytest.mark.parametrize("clips", [2, 3, 4, 10])
def test_views_of_a_long_video_all_differ(sampling, clips):
    seen = {
        tuple(frame_indices(600, 30, sampling=sampling, num_frames=8, stride=8, clip=clip, num_clips=clips))
        for clip in range(clips)
    }
    assert len(seen) == clips


def test_random_clips_reach_both_ends_of_the_video():
    generator = np.random.default_rng(0)
    drawn = [frame_indices(100, 30, sampling="stride", num_frames=4, stride=8, generator=generator) for _ in range(400)]
    starts = [indices[0] for indices in drawn]
    assert min(starts) == 0
    assert max(starts) == 67
    assert max(indices[-1] for indices in drawn) == 98  # the last start, 68, has probability zero


def test_clips_lie_as_pytorchvideos_uniform_sampler_lays_them():
    from pytorchvideo.data.clip_sampling import UniformClipSampler

    # 300 frames at 30 fps cut into clips of 64 frames, one every 59: its starts are ours for five clips
    fps, frames, span, clips = 30, 300, 64, 5
    sampler = UniformClipSampler(Fraction(span, fps), Fraction(59, fps))
    theirs, end = [], 0.0
    for _ in range(clips):
        clip = sampler(end, Fraction(frames, fps), {})
        theirs.append(round(float(clip.clip_start_sec) * fps))
        end = clip.clip_end_sec
    ours = [
        frame_indices(frames, fps, sampling="stride", num_frames=8, stride=8, clip=clip, num_clips=clips)[0]
        for clip in range(clips)
    ]
    assert ours == theirs == [0, 59, 118, 177, 236]


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((None, None), (0, 90)),
        ((1.0, 2.0), (30, 30)),
        ((2.5, None), (75, 15)),
        ((2.0, 9.0), (60, 30)),
        ((9.0, 10.0), (89, 1)),
        ((1.01, 1.02), (30, 1)),  # between two frames: the one that is seen then
        ((0.1, 0.7), (3, 18)),  # start included, end not
    ],
)
def test_a_trimmed_part_stays_inside_the_video(span, expected):
    assert trimmed_range(np.arange(90) / 30, *span) == expected


def test_a_trimmed_part_follows_a_varying_frame_rate():
    times = np.array([0.0, 0.1, 0.2, 1.0, 1.1, 5.0])
    assert trimmed_range(times, 0.2, 1.1) == (2, 2)
    assert trimmed_range(times, 1.05, None) == (4, 2)


def test_a_varying_rate_is_sampled_by_time():
    # two seconds of 60 fps and two of 10: a frame every half second is wanted, whatever lies between
    times = np.concatenate([np.arange(120) / 60, 2 + np.arange(20) / 10])
    settings = {"sampling": "stride", "num_frames": 8, "stride": 15, "target_fps": 30}
    taken = frame_indices(140, 35, times=times, **settings)
    np.testing.assert_allclose(times[taken], np.arange(8) * 119 / 7 / 30, atol=0.1)
    assert taken.tolist() == [0, 34, 68, 102, 122, 128, 134, 139]
    # by counting, the second half would have had one frame in seven
    assert (frame_indices(140, 35, **settings) < 120).sum() == 7
    random = frame_indices(140, 35, times=times, generator=np.random.default_rng(1), **{**settings, "stride": 4})
    assert (np.diff(random) >= 0).all() and random.min() >= 0 and random.max() < 140


@given(videos.filter(lambda count: count > 2), st.sampled_from([0.1, 10, 24, 30000 / 1001, 60, 240]))
def test_a_clock_of_milliseconds_leaves_a_constant_rate_constant(frames, fps):
    times = np.round(np.arange(frames) / fps, 3)
    assert are_even(times)
    assert not are_even(np.concatenate([times, times[-1] + 5 / fps + times]))


def test_unknown_sampling_is_refused_with_a_hint():
    with pytest.raises(StvideoError, match=r"did you mean 'segment'.*stride or segment"):
        frame_indices(10, 30, sampling="segments", num_frames=2)
