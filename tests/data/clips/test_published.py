"""Published protocols, frame for frame: against slow transcriptions of what the released programs compute."""

import itertools
import re
from pathlib import Path

import pytest
import torch

from stvideo.data.clips.protocols import PROTOCOLS
from stvideo.data.clips.sampling import frame_indices

VIDEOS = [(frames, fps) for frames in (1, 2, 7, 16, 63, 64, 65, 150, 255, 256, 257, 299, 300, 301, 1800)
          for fps in (10.0, 15.0, 25.0, 30000 / 1001, 30.0, 50.0, 60.0)]  # fmt: skip


def timesformer(frames, fps, num_frames, stride, clip, clips):
    """Presentation times select the frames to decode, then the clip is spread over what was decoded."""
    ticks = 1000 * frames // frames  # of the container's clock, per frame
    size = stride * num_frames / 30 * fps
    start = max(frames - size, 0) * clip / clips
    first, last = int(start * ticks), int((start + size - 1) * ticks)
    decoded = []
    for number in range(frames):
        if number * ticks >= first:
            decoded.append(number)
            if number * ticks > last:
                break
    places = torch.linspace(0, size - 1, num_frames).clamp(0, len(decoded) - 1).long()
    return [decoded[place] for place in places]


def videomae(frames, fps, num_frames, stride, clip, clips):
    """The whole video is read at its stride, filled up with its last frame, then cut."""
    read = list(range(0, frames, stride))
    while len(read) < num_frames:
        read.append(read[-1])
    first = int(clip * max((len(read) - num_frames) / (clips - 1), 0))
    return read[first : first + num_frames]


def video_swin(frames, fps, num_frames, stride, clip, clips):
    """Every clip starts in the middle of its interval; indices beyond the end begin again."""
    length = num_frames * stride
    interval = (frames - length + 1) / clips
    first = int(clip * interval + interval / 2) if frames > length - 1 else 0
    return [(first + number * stride) % frames for number in range(num_frames)]


def mmaction2(frames, fps, num_frames, stride, clip, clips):
    """The first clip starts with the video, the last one ends with it; indices beyond the end begin again."""
    length = (num_frames - 1) * stride + 1
    first = round(clip * (max(frames - length, 0) / (clips - 1)))
    return [(first + number * stride) % frames for number in range(num_frames)]


def timesformer_something(frames, fps, num_frames, stride, clip, clips):
    """The middle of each segment between rounded bounds."""
    segment = (frames - 1) / num_frames
    return [(round(segment * i) + round(segment * (i + 1))) // 2 for i in range(num_frames)]


def videomae_something(frames, fps, num_frames, stride, clip, clips):
    """Middles and starts of all segments in one sorted row, of which each clip takes every second one."""
    tick = frames / num_frames
    row = sorted([int(tick / 2 + tick * i) for i in range(num_frames)] + [int(tick * i) for i in range(num_frames)])
    return row[clip::2]


PUBLISHED = {  # name -> transcription, frames and stride of the published models
    "k400-1x3": (timesformer, 8, 32),
    "k400-4x3": (video_swin, 32, 2),
    "k400-4x3-mmaction2": (mmaction2, 32, 2),
    "k400-5x3": (videomae, 16, 4),
    "ssv2-1x3": (timesformer_something, 8, 1),
    "ssv2-2x3": (videomae_something, 16, 1),
}
OTHER_MODELS = {"k400-1x3": [(16, 16), (96, 4)], "k400-5x3": [(16, 5)], "ssv2-1x3": [(16, 1), (32, 1)]}


def taken(name, frames, fps, num_frames, stride, clip):
    protocol = PROTOCOLS[name]
    return frame_indices(
        frames, fps, sampling=protocol.sampling, num_frames=num_frames, stride=stride,
        clip=clip, num_clips=protocol.clips, rule=protocol.rule,
    ).tolist()  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_protocol_takes_the_published_frames(name):
    transcription, *model = PUBLISHED[name]
    clips = PROTOCOLS[name].clips
    for (num_frames, stride), (frames, fps) in itertools.product([model, *OTHER_MODELS.get(name, [])], VIDEOS):
        for clip in range(clips):
            expected = transcription(frames, fps, num_frames, stride, clip, clips)
            assert taken(name, frames, fps, num_frames, stride, clip) == expected, (num_frames, stride, frames, fps)


def test_timesformers_clip_starts_with_the_video_and_ours_in_its_middle():
    assert taken("k400-1x3", 300, 30.0, 8, 32, 0) == [0, 36, 72, 109, 145, 182, 218, 255]
    assert taken("k400-1x3-middle", 300, 30.0, 8, 32, 0) == [22, 58, 94, 131, 167, 204, 240, 277]
    for clips in (4, 5):
        starts = [taken(f"k400-{clips}x3-even", 300, 30.0, 16, 4, clip)[0] for clip in range(clips)]
        assert starts == [int(236 * clip / (clips - 1)) for clip in range(clips)]


def test_several_clips_of_timesformers_rule_start_at_the_nths_of_the_room():
    rule = PROTOCOLS["k400-1x3"].rule
    for frames, fps in VIDEOS:
        for clip in range(3):
            expected = timesformer(frames, fps, 8, 32, clip, 3)
            assert rule(frames, fps, 8, 32, 30.0, clip, 3).tolist() == expected, (frames, fps, clip)


def written(clip):
    """As the documentation writes a clip: more than eight frames by the first two and the last one."""
    return f"{clip[0]}, {clip[1]} .. {clip[-1]}" if len(clip) > 8 else ", ".join(map(str, clip))


def test_the_documented_frames_are_those_taken():
    text = Path(__file__).parents[3].joinpath("docs/data.md").read_text()
    rows = {
        row[0]: row[1:] for row in re.findall(r"^\| `([\w-]+)` \| (\d+)(?: x (\d+))? frames \| (.*) \|$", text, re.M)
    }
    assert set(rows) == {name for name, protocol in PROTOCOLS.items() if protocol.split is not None}
    for name, (num_frames, stride, cell) in rows.items():
        settings = int(num_frames), int(stride or 1)
        clips = [taken(name, 300, 30.0, *settings, clip) for clip in range(PROTOCOLS[name].clips)]
        assert cell == "; ".join(map(written, clips)), name
        if name in PUBLISHED:
            transcription, *model = PUBLISHED[name]
            assert list(settings) == model
            assert clips == [transcription(300, 30.0, *settings, clip, len(clips)) for clip in range(len(clips))]
