"""End to end from real files: the parts alone and together, which is the limit, and what to change."""

import json

import pytest

from stvideo import StvideoError
from stvideo.benchmark import main
from stvideo.benchmarks.end_to_end import Videos, what_to_change
from stvideo.benchmarks.generated_clips import generated_clips
from stvideo.data.video.decode import open_video, read_frames
from stvideo.settings.config import DataConfig

TINY = "embed_dim=32 depth=2 num_heads=2 img_size=32 num_frames=2 num_classes=3"


def test_generated_clips_are_what_was_asked_for_and_finish_what_is_missing(tmp_path):
    paths = generated_clips(tmp_path, 2, width=64, height=48, frames=12)
    with open_video(paths[1]) as video:
        assert (video.num_frames, video.short_side, round(video.fps)) == (12, 48, 30)
    first, second = (read_frames(path, [0, 6, 11]) for path in paths)
    paths[0].unlink()
    paths[1].write_bytes(b"left alone")
    assert generated_clips(tmp_path, 2, width=64, height=48, frames=12) == paths
    # x264 with B-frames does not write the same bytes every time
    again = read_frames(paths[0], [0, 6, 11]).float()
    assert (again - first).abs().mean() < 15 < (again - second).abs().mean()
    assert paths[1].read_bytes() == b"left alone"


@pytest.mark.parametrize("workers", [0, 1])
def test_from_files(tmp_path, capsys, workers):
    generated_clips(tmp_path / "videos", 2, width=64, height=48, frames=40)
    arguments = [f"timesformer_tiny_patch16_224 {TINY}", "+evit.keep_rate=0.5 evit.layers=[0]", "mode=end_to_end"]
    options = [f"files={tmp_path}/videos", f"workers={workers}", "batch_sizes=2", "rounds=1", f"output={tmp_path}/out"]
    assert main([*arguments, *options]) == 0
    shown = capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    dense, reduced = content["sections"][0]["rows"]
    for row in (dense, reduced):
        alone = min(row[name]["median"] for name in ("loader", "transfer", "forward"))
        assert row["of_limit"] == pytest.approx(row["together"]["median"] / alone)
        assert 0 <= row["waiting"] <= 1
        assert row["limit"] in ("loader", "transfer", "model", "cores")
    assert dense["speedup"] is None
    together = [row["rounds"]["together"][0] for row in (dense, reduced)]
    assert reduced["speedup"]["median"] == pytest.approx(together[1] / together[0])
    assert sum("is the limit" in note or "are the limit" in note for note in content["notes"]) == 2
    assert "2 videos of 48 pixels" in shown


def test_a_configuration_says_where_the_videos_are(tmp_path):
    paths = generated_clips(tmp_path / "videos", 1, width=64, height=48, frames=40)
    (tmp_path / "val.txt").write_text(f"videos/{paths[0].name} 0\n")
    config = tmp_path / "c.yaml"
    config.write_text(
        "model: {name: timesformer_tiny_patch16_224, num_classes: 2, args: {embed_dim: 32, depth: 2, num_heads: 2}}\n"
        f"data: {{root: {tmp_path}, num_frames: 2, img_size: 32, workers: 0}}\n"
    )
    assert main([str(config), "mode=end_to_end", "batch_sizes=1", "rounds=1", f"output={tmp_path}/out"]) == 0
    content = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert any("1 video of 48 pixels" in note and "loader processes: 0" in note for note in content["notes"])


def test_no_videos_is_one_line(tmp_path):
    with pytest.raises(StvideoError, match="no video file in this folder"):
        main([f"timesformer_tiny_patch16_224 {TINY}", "mode=end_to_end", f"files={tmp_path}"])


def row(limit, loader, model):
    return {"limit": limit, "loader": {"median": loader}, "forward": {"median": model}}


@pytest.mark.parametrize(
    ("limit", "loader", "model", "words"),
    [
        ("loader", 10.0, 25.0, ["workers=5 instead of 2", "data_tools/resize.py", "clips_per_video"]),
        ("loader", 1.0, 25.0, ["workers=8 instead of 2"]),  # more than there are cores would not help
        ("model", 30.0, 10.0, ["could feed 3.0 of it", "optimize=true"]),
        ("cores", 10.0, 9.0, ["share the cores"]),
        ("transfer", 10.0, 9.0, ["larger batch"]),
    ],
)
def test_what_to_change(limit, loader, model, words):
    videos = Videos([], DataConfig(img_size=224), workers=2, short_side=720)
    said = what_to_change(row(limit, loader, model), videos, cores=8)
    assert all(word in said for word in words)
    small = Videos([], DataConfig(img_size=224), workers=2, short_side=256)
    assert "resize" not in what_to_change(row(limit, loader, model), small, cores=8)
