"""verify.py: what it says about good, odd and broken files, and that it can be stopped and gone on with anyhow."""

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data_tools.verify import main
from stvideo.core.errors import StvideoError
from stvideo.data.lists.manifest import VideoRow
from stvideo.data.video.decode import open_video, read_frames
from stvideo.data.video.decord import decord_problem
from stvideo.preparation.jobs import Failure
from stvideo.preparation.verification import settle, verify
from tests.data_tools.damaged_files import FRAMES, encode, write_bad, write_good, write_partial, write_pipe
from tests.tiny_runs import environment
from tests.video_files import SHARED_VIDEOS, frame_numbers, hide_the_start, repeat_without_encoding, set_display_matrix

REPOSITORY = Path(__file__).parents[2]
FILES = 25  # that a stopped run leaves for the next one
MORE = 2000  # that it has before it as well, so that no signal comes too late on a busy machine


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> tuple[Path, dict[str, VideoRow]]:
    """A folder with everything in it, and what verify said about each file."""
    root = tmp_path_factory.mktemp("videos")
    paths = [*write_good(root), *write_bad(root), write_partial(root), write_pipe(root), "gone.mp4", "a"]
    entries = verify(root, paths, root / "manifest.csv", workers=2, timeout=60.0)
    assert [entry.path for entry in entries] == paths
    return root, {entry.path: entry for entry in entries}


def test_good_files_are_described(seen):
    root, entries = seen
    entry = entries["a/clip.mp4"]
    assert (entry.status, entry.reason, entry.frames, entry.listed) == ("ok", "", FRAMES, FRAMES)
    assert (entry.width, entry.height, entry.fps, entry.codec, entry.rotation) == (96, 64, 30, "h264", 0)
    assert entry.duration == pytest.approx(FRAMES / 30)
    assert (entry.keyframes, entry.key_gap_median, entry.key_gap_max) == (4, 12, 12)  # at 0, 12, 24, 36
    assert entry.bytes == (root / "a/clip.mp4").stat().st_size
    assert entry.decord == "same"
    turned = entries["a/rotated.mp4"]
    assert (turned.status, turned.width, turned.height, turned.rotation) == ("ok", 64, 96, 90)
    assert (entries["b/clip.webm"].status, entries["b/clip.webm"].codec) == ("ok", "vp8")


def test_files_that_decord_gets_wrong_are_told(seen):
    _, entries = seen
    wrong = entries["b/open gop.mp4"]
    assert (wrong.status, wrong.decord, wrong.decoder, wrong.frames) == ("exact", "different", "pyav", FRAMES)
    assert "frames wrong" in wrong.reason
    assert entries["b/source.mp4"].status == "ok"  # B-frames alone do no harm
    cut = entries["b/cut.mp4"]
    assert (cut.status, cut.decord, cut.decoder, cut.frames) == ("exact", "hangs", "pyav", 19)


def test_bad_files_are_unusable_each_for_its_reason(seen):
    _, entries = seen
    reasons = {path: entry.reason for path, entry in entries.items() if entry.status == "unusable"}
    assert "the file is empty" in reasons.pop("bad/empty.mp4")
    assert "web page" in reasons.pop("bad/page.mp4")
    assert "no video stream" in reasons.pop("bad/sound.mp4")
    assert reasons.pop("bad/no_index.mp4")
    assert f"of {FRAMES} frames can be decoded" in reasons.pop("bad/tenth.mp4")
    assert "a pipe" in reasons.pop("pipe.mp4")
    assert "no such file" in reasons.pop("gone.mp4")
    assert "a folder" in reasons.pop("a")
    assert not reasons


def test_a_damaged_file_counts_as_far_as_it_decodes(seen):
    _, entries = seen
    entry = entries["partial.mp4"]
    assert entry.status == "partial" and entry.decoder == "pyav"
    assert FRAMES / 2 < entry.frames < entry.listed == FRAMES
    assert f"only the first {entry.frames} of {FRAMES}" in entry.reason


def test_what_an_edit_list_hides_is_no_damage(tmp_path):
    whole = encode(tmp_path / "whole.mp4")
    (tmp_path / "root").mkdir()
    path = hide_the_start(whole, tmp_path / "root" / "trimmed.mp4", 26)
    with open_video(path) as video:
        assert frame_numbers(video.read(range(video.num_frames))) == [*range(26, FRAMES)]
    (entry,) = verify(tmp_path / "root", ["trimmed.mp4"], tmp_path / "manifest.csv", workers=1)
    assert (entry.frames, entry.listed) == (FRAMES - 26, FRAMES - 26) and entry.status in ("ok", "exact")


def test_names_that_decord_cannot_take_are_read_all_the_same(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    encode(tmp_path / "a.mp4", frames=4).rename(tmp_path / name)
    (entry,) = verify(tmp_path, [name], tmp_path / "manifest.csv", workers=1)
    assert (entry.frames, entry.decoder) == (4, "pyav") and entry.status in ("ok", "exact")
    assert len(read_frames(tmp_path / name, [3], decoder="auto" if decord_problem() else "decord")) == 1


@pytest.mark.skipif(bool(decord_problem()), reason="decord has no wheel for this platform")
def test_mirrored_files_are_not_for_decord(tmp_path):
    set_display_matrix(encode(tmp_path / "a.mp4", frames=4), -1, 0, 0, 1)
    (entry,) = verify(tmp_path, ["a.mp4"], tmp_path / "manifest.csv", workers=1)
    assert (entry.decord, entry.decoder, entry.rotation) == ("different", "pyav", 180)


def test_the_manifest_is_a_table_in_the_order_of_the_list(seen):
    root, entries = seen
    lines = (root / "manifest.csv").read_text().splitlines()
    assert lines[0].split(",") == VideoRow.columns()
    assert [line.split(",")[0] for line in lines[1:]] == list(entries)


def test_a_decoder_that_hangs_or_crashes_is_to_blame_not_the_file(tmp_path):
    encode(tmp_path / "x.mp4", frames=4)
    known = VideoRow("x.mp4", "ok", frames=4, decoder="pyav")
    hung, crashed = Failure("timeout", "no progress in 10 s"), Failure("crash", "the decoder crashed (SIGSEGV)")
    row = settle(tmp_path, "x.mp4", hung, known)
    assert (row.status, row.decord, row.decoder, row.frames) == ("exact", "hangs", "pyav", 4)
    assert settle(tmp_path, "x.mp4", crashed, known).decord == "crashes"
    lost = settle(tmp_path, "x.mp4", hung, crashed)
    assert (lost.status, lost.reason, lost.bytes > 0) == ("unusable", "the decoder crashed (SIGSEGV)", True)
    lost = settle(tmp_path, "x.mp4", crashed, hung)
    assert lost.reason == "decoding hangs: no progress in 10 s"
    unreadable = VideoRow("x.mp4", "unusable", reason="the file is empty")
    assert settle(tmp_path, "x.mp4", hung, unreadable) == unreadable


def test_workers_that_hang_or_are_killed_cost_only_their_file(tmp_path):
    encode(tmp_path / "1.mp4", frames=6)
    short = encode(tmp_path / "short.mp4", frames=12)
    repeat_without_encoding(short, tmp_path / "2 long.mp4", 2000)  # so long that no signal comes after its end
    for name in ("3", "5"):
        shutil.copy(tmp_path / "1.mp4", tmp_path / f"{name}.mp4")
    shutil.copy(tmp_path / "2 long.mp4", tmp_path / "4 long.mp4")
    manifest = tmp_path / "manifest.csv"

    earlier = set(multiprocessing.active_children())

    def disturb():
        for lines, number in ((2, signal.SIGSTOP), (3, signal.SIGKILL)):
            while not manifest.exists() or manifest.read_bytes().count(b"\n") < lines:
                time.sleep(0.005)
            time.sleep(0.5)  # until the next file has been begun
            (worker,) = set(multiprocessing.active_children()) - earlier
            os.kill(worker.pid, number)
            if number == signal.SIGSTOP:
                time.sleep(8)  # longer than a file may go without a new frame
                os.kill(worker.pid, signal.SIGCONT)

    threading.Thread(target=disturb, daemon=True).start()
    entries = verify(tmp_path, [f"{n}.mp4" for n in ("1", "2 long", "3", "4 long", "5")], manifest, 1, timeout=5.0)
    # Looked at a second time without decord, they turn out to be whole.
    assert [entry.status for entry in entries] == ["ok", "exact", "ok", "exact", "ok"]
    assert [entry.decord for entry in entries] == ["same", "hangs", "same", "crashes", "same"]


def stopped_in_the_middle(root: Path, number: int) -> tuple[list[str], str]:
    """Start verify on many files, end it by a signal after a few; (lines of the manifest, what it printed)."""
    encode(root / "00.mp4", frames=6)
    for count in range(1, FILES):
        shutil.copy(root / "00.mp4", root / f"{count:02d}.mp4")
    for count in range(MORE):
        (root / f"more {count}.mp4").hardlink_to(root / "00.mp4")
    manifest = root / "manifest.csv"
    command = [sys.executable, "data_tools/verify.py", str(root), "workers=1"]
    running = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not manifest.exists() or manifest.read_bytes().count(b"\n") < 4:
        time.sleep(0.005)
        assert running.poll() is None
    os.killpg(running.pid, number)  # as a terminal and a scheduler do
    _, errors = running.communicate(timeout=300)
    assert running.returncode == (-number if number == signal.SIGKILL else 130)
    for count in range(MORE):
        (root / f"more {count}.mp4").unlink()
    lines = manifest.read_text().splitlines()
    assert 4 <= len(lines) < FILES + MORE
    return lines, errors


def test_killed_in_the_middle_it_goes_on_from_there(tmp_path, capsys):
    lines, _ = stopped_in_the_middle(tmp_path, signal.SIGKILL)
    manifest = tmp_path / "manifest.csv"
    # A mark on what is there shows that it is not done again; a torn line is.
    marked = [re.sub("(decord|pyav),,", r"\1,kept,", line, count=1) for line in lines[1:4]]
    manifest.write_text("\n".join([lines[0], *marked, "03.mp4,ok,6,2"]))
    assert main([str(tmp_path)]) == 0
    assert f"{len(marked)} of {FILES} are in it already" in capsys.readouterr().err
    entries = [line.split(",") for line in manifest.read_text().splitlines()[1:]]
    assert [entry[:2] for entry in entries] == [[f"{count:02d}.mp4", "ok"] for count in range(FILES)]
    assert [entry[5] for entry in entries] == ["kept"] * len(marked) + [""] * (FILES - len(marked))
    # Files that change are looked at again, others are not.
    encode(tmp_path / "01.mp4", frames=9)
    (tmp_path / "02.mp4").write_bytes(b"")
    assert main([str(tmp_path)]) == 1
    entries = [line.split(",") for line in manifest.read_text().splitlines()[1:]]
    assert [entry[1:3] for entry in entries[:3]] == [["ok", "6"], ["ok", "9"], ["unusable", "0"]]
    assert entries[0][5] == "kept"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_leaves_what_is_done_and_says_so_in_one_line(tmp_path, number):
    lines, errors = stopped_in_the_middle(tmp_path, number)
    done = f"verify stopped after {len(lines) - 1} of {FILES + MORE:,} files"
    said = [line for line in errors.splitlines() if line and not line.startswith("verify:")]
    assert said == [f"stvideo: error: interrupted: {done}; the same command goes on there"]
    assert all(",ok," in line for line in lines[1:])


def test_lists_and_configurations_name_videos_too(tmp_path, capsys):
    root = tmp_path / "root"
    encode(root / "my videos" / "a b.mp4", frames=6)
    encode(root / "c.mp4", frames=6)
    (root / "train.txt").write_text('"my videos/a b.mp4" 0\nc.mp4 1\nc.mp4 1 0 0.1\n')
    (root / "val.txt").write_text("c.mp4 1\nnot there.mp4 0\n")
    assert main([str(root / "train.txt")]) == 0
    first = (root / "manifest.csv").read_text()
    assert [line.split(",")[0] for line in first.splitlines()[1:]] == ["my videos/a b.mp4", "c.mp4"]
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {{root: {tmp_path / 'nowhere'}}}\n")
    capsys.readouterr()
    output = tmp_path / "m.csv"
    assert main([str(config), f"data.root={root}", f"output={output}"]) == 1
    assert [line.split(",")[0] for line in output.read_text().splitlines()[1:]] == [
        "my videos/a b.mp4", "c.mp4", "not there.mp4",
    ]  # fmt: skip
    summary = capsys.readouterr().out
    assert "3 videos" in summary and "no such file" in summary and f"manifest: {output}" in summary


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a list file, a folder, a configuration, or root=FOLDER"),
        (["{tmp}/none"], "no such file or folder"),
        (["{tmp}"], "no videos below it"),
        (["{tmp}", "timeout=0"], "timeout=0: expected seconds above 0"),
        (["{tmp}", "rot=1"], "unknown key 'rot' (did you mean 'root'?)"),
        (["{tmp}", "data.root=1"], "is a setting of a configuration"),
        (["{tmp}/x.txt", "output={tmp}"], "this is no file; name another output"),
        (["{tmp}/x.txt", "output={tmp}/x.txt"], "another kind of file"),
        (["{tmp}/x.txt", "root={tmp}/none"], "no such folder"),
        (["{tmp}/x.txt", "workers=-1"], "workers=-1"),
        (["{tmp}/y.txt"], "is data.root right?"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, message):
    (tmp_path / "x.txt").write_text("v.mp4 0\n")
    (tmp_path / "y.txt").write_text("w.mp4 0\n")
    if any("x.txt" in argument for argument in arguments):
        encode(tmp_path / "v.mp4", frames=2)
    with pytest.raises(StvideoError) as caught:
        main([argument.format(tmp=tmp_path) for argument in arguments])
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif(not SHARED_VIDEOS.exists(), reason="the real videos are not here")
def test_real_videos(tmp_path):
    names = ["arm_wrestling.mp4", "h265_video.mp4", "corrupted.mp4", "video_90.mov", "testsrc2_vp9.webm"]
    entries = {entry.path: entry for entry in verify(SHARED_VIDEOS, names, tmp_path / "m.csv", workers=2)}
    assert {name: entry.status for name, entry in entries.items()} == {
        "arm_wrestling.mp4": "ok",
        "h265_video.mp4": "exact",  # decord is off by a frame after an open group of pictures
        "corrupted.mp4": "partial",  # 28 of the 50 frames it claims
        "video_90.mov": "ok",
        "testsrc2_vp9.webm": "ok",
    }
    assert entries["arm_wrestling.mp4"].frames == 280 and entries["corrupted.mp4"].frames == 28
    assert entries["video_90.mov"].rotation == 270
