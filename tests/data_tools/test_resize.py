"""resize.py: the same pictures at the same times, quick to read; originals untouched; stopped and gone on with."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from data_tools.resize import main
from stvideo.core.errors import StvideoError
from stvideo.data.lists.listfiles import read_list
from stvideo.data.loading.datasets import build_dataset
from stvideo.data.video.decode import open_video
from stvideo.data.video.packets import index_packets, open_container
from stvideo.preparation.resizing import resize, target_names
from stvideo.preparation.transcode import Encoding, Recipe, Transcoded, target_size, transcode
from stvideo.settings.schema import DataConfig
from tests.data_tools.damaged_files import FRAMES, encode, write_bad, write_good, write_partial
from tests.tiny_runs import environment
from tests.video_files import frame_numbers, set_display_matrix

REPOSITORY = Path(__file__).parents[2]
RECIPE = Recipe(short_side=48, keyframes=8, crf=12)
TIMES = np.cumsum(np.random.default_rng(0).integers(10, 80, FRAMES)).tolist()


def write_more(root: Path) -> list[str]:
    """Good files that are harder to get right."""
    encode(root / "c" / "variable.mp4", times=TIMES)
    encode(root / "c" / "29.97.mkv", fps=30000 / 1001)
    encode(root / "c" / "odd.mp4", height=67, width=99, codec="mpeg4", options={"b": "4M"})
    encode(root / "c" / "small.mp4", height=32, width=48)
    encode(root / "c" / "full range.mp4", pixel_format="yuvj420p")
    encode(root / "c" / "half turn.mp4", rotation=180)
    set_display_matrix(encode(root / "c" / "mirrored quarter turn.mp4"), 0, 1, 1, 0)
    encode(root / "c" / "old.avi", codec="mpeg4", options={"b": "4M"}, b_frames=2)
    encode(root / "c" / "stream.ts", b_frames=2)
    names = ("variable.mp4", "29.97.mkv", "odd.mp4", "small.mp4", "full range.mp4", "half turn.mp4", "old.avi")
    return [f"c/{name}" for name in (*names, "mirrored quarter turn.mp4", "stream.ts")]


def with_sound(path: Path, source: Path) -> None:
    """``source`` with a sound track added."""
    with av.open(str(source)) as reader, av.open(str(path), "w") as writer:
        picture = writer.add_stream_from_template(reader.streams.video[0])
        sound = writer.add_stream("aac", rate=16000, layout="mono")
        for packet in reader.demux(reader.streams.video[0]):
            if packet.size:
                packet.stream = picture
                writer.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        writer.mux(sound.encode(frame))
        writer.mux(sound.encode(None))


def digests(root: Path) -> dict[str, tuple[str, int]]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


def packet_index(path: Path):
    container, stream = open_container(path)
    with container:
        return index_packets(container, stream, path)


@pytest.fixture(scope="module")
def resized(tmp_path_factory):
    """(root, output, good paths, rows by path) of a folder with everything in it."""
    root, output = tmp_path_factory.mktemp("originals"), tmp_path_factory.mktemp("small")
    good = [*write_good(root), *write_more(root)]
    with_sound(root / "a" / "sound.mp4", root / "a" / "clip.mp4")
    good.append("a/sound.mp4")
    paths = [*good, *write_bad(root), write_partial(root)]
    before = digests(root)
    rows = resize(root, target_names(paths), output, RECIPE, workers=2)
    assert digests(root) == before
    return root, output, good, {row.path: row for row in rows}


def test_every_frame_is_the_original_at_its_time(resized):
    root, output, good, rows = resized
    for path in good:
        row = rows[path]
        assert row.status == "done", (path, row)
        with open_video(root / path, "pyav") as first, open_video(output / row.target, "pyav") as second:
            assert second.num_frames == first.num_frames == row.frames, path
            shown = first.times - first.times[0]  # the small file has no sound that could begin before the picture
            np.testing.assert_allclose(second.times, shown, atol=1e-9, err_msg=path)
            assert second.fps == pytest.approx(first.fps, rel=1e-3), path  # Matroska counts milliseconds
            everything = range(first.num_frames)
            small = second.read(everything).numpy()
            before = first.read(everything, small.shape[1:3]).numpy()
        errors = ((small.astype(float) - before) ** 2).mean((1, 2, 3))
        psnr = 10 * np.log10(255**2 / errors)
        assert psnr.min() > 25, (path, psnr.min())
        if "turn" not in path and "rotated" not in path:
            assert frame_numbers(small) == frame_numbers(before), path
        assert row.bytes == (output / row.target).stat().st_size and row.bytes_before == (root / path).stat().st_size


def test_sizes_are_even_turned_and_never_larger(resized):
    _, output, _, rows = resized
    sizes = {path: (row.width, row.height) for path, row in rows.items() if row.status == "done"}
    assert sizes["a/clip.mp4"] == (72, 48)
    assert sizes["a/rotated.mp4"] == (48, 72)
    assert sizes["c/small.mp4"] == (48, 32)
    assert sizes["c/odd.mp4"] == (70, 48)
    with open_video(output / "a/rotated.mp4") as video:
        assert (video.info.width, video.info.height, video.info.rotation) == (48, 72, 0)
    assert target_size(1920, 1080, 320) == (568, 320)
    assert target_size(121, 81, 320) == (120, 80)
    assert target_size(1, 1, 320) == (2, 2)


def test_groups_are_closed_and_as_long_as_chosen(resized):
    _, output, good, rows = resized
    for path in good:
        target = output / rows[path].target
        index = packet_index(target)
        assert (index.codec, index.reordered, index.open_gop, index.late_start) == ("h264", False, False, False)
        keys = np.searchsorted(index.pts, index.key_pts).tolist()
        assert keys == list(range(0, index.num_frames, RECIPE.keyframes)), path
        with av.open(str(target)) as container:
            assert [stream.type for stream in container.streams] == ["video"]  # no sound
    # Each group by itself, in a decoder of its own, gives the frames that the whole gives.
    target = output / rows["b/open gop.mp4"].target
    with open_video(target, "pyav") as video:
        whole = video.read(range(video.num_frames)).numpy()
    with av.open(str(target)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        for start in range(0, len(packets), RECIPE.keyframes):
            decoder = av.CodecContext.create("h264", "r")
            decoder.extradata = stream.codec_context.extradata
            group = packets[start : start + RECIPE.keyframes]
            frames = [frame for packet in [*group, None] for frame in decoder.decode(packet)]
            assert len(frames) == len(group)
            for number, frame in enumerate(frames, start):
                assert np.array_equal(frame.to_ndarray(format="rgb24"), whole[number])


def test_every_decoder_reads_the_result_right(resized):
    _, output, good, rows = resized
    for path in good:
        target = output / rows[path].target
        with open_video(target, "pyav") as first, open_video(target, "decord") as second:
            wanted = [first.num_frames - 1, 0, first.num_frames // 2, 7, 8]
            if second.decoder == "decord":
                assert np.array_equal(first.read(wanted), second.read(wanted)), path


def test_bad_files_are_told_and_the_others_go_on(resized):
    _, output, _, rows = resized
    failed = {path: row.reason for path, row in rows.items() if row.status == "failed"}
    assert set(failed) == {f"bad/{name}.mp4" for name in ("empty", "page", "sound", "no_index", "tenth")}
    assert "empty" in failed["bad/empty.mp4"] and "web page" in failed["bad/page.mp4"]
    assert not any((output / path).exists() for path in failed)
    assert not list(output.rglob("*.part"))
    partial = rows["partial.mp4"]
    assert partial.status == "shortened" and f"only the first {partial.frames} of {FRAMES}" in partial.reason
    assert packet_index(output / "partial.mp4").num_frames == partial.frames


def test_names_do_not_meet():
    paths = ["a/x.webm", "a/x.avi", "a/x.mp4", "b/x.webm", "b/x", "c.d/x", "B.MOV"]
    names = target_names(paths)
    assert names == {
        "a/x.webm": "a/x.webm.mp4",
        "a/x.avi": "a/x.avi.mp4",
        "a/x.mp4": "a/x.mp4",
        "b/x.webm": "b/x.mp4",
        "b/x": "b/x_.mp4" if names["b/x"] == "b/x_.mp4" else names["b/x"],
        "c.d/x": "c.d/x.mp4",
        "B.MOV": "B.mp4",
    }
    assert len(set(names.values())) == len(names)


def test_only_what_is_missing_changed_or_asked_for_otherwise_is_done_again(tmp_path, capsys):
    root, output = tmp_path / "root", tmp_path / "out"
    for name in ("a", "b", "c"):
        encode(root / f"{name}.mp4", frames=10)
    command = [str(root), f"output={output}", "short_side=48", "crf=20"]
    assert main(command) == 0
    assert "3 of 3 videos:" in capsys.readouterr().out

    def done_again(expected: int) -> set[str]:
        before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.mp4")}
        assert main(command) == expected
        return {path.name for path in output.glob("*.mp4") if path.stat().st_mtime_ns != before.get(path.name)}

    assert done_again(0) == set()
    (output / "b.mp4").unlink()
    (output / ".b.mp4.part").write_bytes(b"half of it")  # as a kill in the middle leaves it
    assert done_again(0) == {"b.mp4"}
    encode(root / "c.mp4", frames=12)
    assert done_again(0) == {"c.mp4"}
    assert packet_index(output / "c.mp4").num_frames == 12
    command[2] = "short_side=32"
    assert done_again(0) == {"a.mp4", "b.mp4", "c.mp4"}
    (root / "a.mp4").write_bytes(b"<html>")
    assert done_again(1) == set()
    assert not (output / "a.mp4").exists()  # it was made from what a.mp4 is no more
    assert not list(output.glob(".*"))


def test_files_of_somebody_else_are_left_alone(tmp_path, capsys):
    root, output = tmp_path / "root", tmp_path / "out"
    encode(root / "a.mp4", frames=4)
    output.mkdir()
    (output / "a.mp4").write_text("precious")
    command = [str(root), f"output={output}", "short_side=48"]
    assert main(command) == 1
    assert "is there already and was not made from it" in capsys.readouterr().out
    assert main([*command, "retry=true"]) == 1
    assert (output / "a.mp4").read_text() == "precious"


def test_lists_come_along(tmp_path, capsys):
    root, output = tmp_path / "root", tmp_path / "out"
    encode(root / "my videos" / "a.webm", codec="libvpx", options={"b": "2M"}, b_frames=None, frames=10)
    encode(root / "b.mp4", frames=10)
    (root / "bad.mov").write_bytes(b"")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text('"my videos/a.webm" 0\nb.mp4,1,0,0.2\n'.replace(",", " "))
    (lists / "val.txt").write_text("b.mp4 1\nbad.mov 0\n")
    (lists / "classes.txt").write_text("left\nright\n")
    sources = [str(lists / name) for name in ("train.txt", "val.txt")]
    assert main([*sources, f"root={root}", f"output={output}", "short_side=48"]) == 1
    assert "bad.mov" in capsys.readouterr().out
    small = {"num_frames": 2, "stride": 2, "img_size": 32, "short_side": [32, 40]}
    train = build_dataset(DataConfig(root=str(output), **small), "train")
    assert train.video_index.paths() == ["my videos/a.mp4", "b.mp4"]
    assert train.classes == ["left", "right"] and train.video_index.labels.tolist() == [0, 1]
    assert train.video_index.span(0) == (None, None) and train.video_index.span(1) == (0.0, 0.2)
    assert train[0]["video"].shape == (3, 2, 32, 32)
    # What failed stays in the list, to be counted as missing.
    assert build_dataset(DataConfig(root=str(output), **small), "val").video_index.paths() == ["b.mp4", "bad.mp4"]


def test_odd_names_and_open_ends_come_along(tmp_path):
    root = tmp_path / "root"
    encode(root / "plain.mp4", frames=3)
    names = ["#1 goal.mp4", "'x' y.mp4", '"q" z.mp4', "com, ma.mp4", "it's.mp4", "tab\t.mp4"]
    for name in names:
        (root / name).write_bytes((root / "plain.mp4").read_bytes())
    lines = ['"' + name.replace('"', '""') + '"\t1\t0.5\t""\n' for name in names]
    (tmp_path / "train.txt").write_text("plain.mp4\t0\n" + "".join(lines))
    assert main([str(tmp_path / "train.txt"), f"root={root}", f"output={tmp_path / 'out'}"]) == 0
    index = read_list(tmp_path / "out" / "train.txt", tmp_path / "out")
    assert index.paths() == ["plain.mp4", *names]
    assert index.labels.tolist() == [0] + 6 * [1]
    assert index.span(0) == (None, None) and index.span(6) == (0.5, None)


def test_names_as_long_as_file_systems_take(tmp_path):
    root = tmp_path / "root"
    long = "x" * 251 + ".mp4"
    encode(root / "a.mp4", frames=3).rename(root / long)
    encode(root / "a.mp4", frames=3)
    assert main([str(root), f"output={tmp_path / 'out'}"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.mp4")) == ["a.mp4", long]


def test_killed_in_the_middle_it_goes_on(tmp_path):
    root, output = tmp_path / "root", tmp_path / "out"
    encode(root / "000.mp4", height=128, width=192, frames=60)
    names = [f"{number:03d}.mp4" for number in range(400)]  # so many that no signal comes too late on a busy machine
    for name in names[1:]:
        (root / name).hardlink_to(root / names[0])
    arguments = [str(root), f"output={output}", "workers=1", "short_side=120"]
    command = [sys.executable, "data_tools/resize.py", *arguments]
    running = subprocess.Popen(command, cwd=REPOSITORY, env=environment(), stderr=subprocess.DEVNULL)
    while len(list(output.glob("*.mp4"))) < 2:
        time.sleep(0.01)
        assert running.poll() is None
    running.kill()
    running.wait()
    done = {path.name: path.stat().st_mtime_ns for path in output.glob("*.mp4")}
    assert 2 <= len(done) < len(names)
    assert all(packet_index(output / name).num_frames == 60 for name in done)  # whole, or not there
    for name in names[len(done) + 5 :]:
        (root / name).unlink()
    assert main(arguments) == 0
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("*.mp4")}
    assert len(after) == min(len(done) + 5, len(names)) and done.items() <= after.items()
    assert not list(output.glob(".*"))


def test_a_full_disk_ends_the_run(tmp_path):
    source = encode(tmp_path / "a.mp4", frames=4)
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("no /dev/full here")
    (tmp_path / "full.mp4").symlink_to("/dev/full")
    outcome = transcode(Encoding(str(source), str(tmp_path / "full.mp4"), RECIPE), lambda **_: None)
    assert not isinstance(outcome, Transcoded) and outcome.kind == "full"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/root"], "output=FOLDER is missing"),
        (["{tmp}/root", "output={tmp}/root"], "lie in one another"),
        (["{tmp}/root", "output={tmp}/root/small"], "lie in one another"),
        (["{tmp}/root", "output={tmp}"], "lie in one another"),
        (["{tmp}/root", "output={tmp}/link"], "lie in one another"),
        (["{tmp}/root", "output={tmp}/out", "short_side=255"], "short_side=255: expected an even number"),
        (["{tmp}/root", "output={tmp}/out", "keyframes=0"], "keyframes=0"),
        (["{tmp}/root", "output={tmp}/out", "crf=60"], "crf=60"),
        (["{tmp}/root", "output={tmp}/out", "crop=1"], "unknown key 'crop'"),
        (["{tmp}/out/t.txt", "root={tmp}/root", "output={tmp}/out"], "would be overwritten"),
        (["{tmp}/root", "output={tmp}/root/v.mp4/x"], "lie in one another"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, message):
    encode(tmp_path / "root" / "v.mp4", frames=2)
    (tmp_path / "link").symlink_to(tmp_path / "root")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "t.txt").write_text("v.mp4 0\n")
    with pytest.raises(StvideoError) as caught:
        main([argument.format(tmp=tmp_path) for argument in arguments])
    assert message in str(caught.value) and "\n" not in str(caught.value)
