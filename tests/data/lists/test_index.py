"""A list of a million videos: little memory while it is read, and one copy for all processes."""

import gc
import json
import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pytest

from stvideo.core.errors import StvideoError
from stvideo.data.lists.index import VideoIndex
from stvideo.data.lists.listfiles import read_list

MILLION = 1_000_000
READ = """
import json, re, sys
from pathlib import Path
import torch
import stvideo.data.loading.datasets
from stvideo.data.lists.annotations import read_annotations

def megabytes(kind):
    return int(re.search(kind + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

before = megabytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
index = read_annotations(Path(sys.argv[1]), Path(sys.argv[2]))
print(json.dumps({"peak": megabytes("VmHWM") - before, "held": megabytes("VmRSS") - before, "videos": len(index),
                  "last": index.path(len(index) - 1), "label": int(index.labels[-1]), "span": index.span(7)}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("line", "span"),
    [
        ("train/some_class_name_{label:03d}/abcde{number:06d}_000005_000015.mp4 {label}\n", [None, None]),
        ('"train/some class name {label:03d}/abcde{number:06d}.mp4",{label},5,15.5\n', [5.0, 15.5]),
    ],
)
def test_a_million_videos_take_little_memory_even_while_they_are_read(tmp_path, line, span):
    path = tmp_path / "list.txt"
    with path.open("w") as file:
        file.writelines(line.format(label=number % 400, number=number) for number in range(MILLION))
    done = subprocess.run([sys.executable, "-c", READ, path, tmp_path], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["videos"], found["label"], found["span"]) == (MILLION, (MILLION - 1) % 400, span)
    assert f"abcde{MILLION - 1:06d}" in found["last"]
    assert found["peak"] < 200
    assert found["held"] < 130


def private_megabytes() -> float:
    """Memory of this process that no other shares, from the kernel's own account."""
    with open("/proc/self/smaps_rollup") as file:  # noqa: PTH123
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) / 1024


def read_everything(index: VideoIndex, results) -> None:
    """What a worker does with the index, with the memory that became its own on the way."""
    gc.disable()  # it would write to every object that a forked worker has from its parent
    before = private_megabytes()
    total = sum(len(index.path(number)) + int(index.labels[number]) for number in range(0, len(index), 5))
    results.put((total, int(index.names.sum()), private_megabytes() - before))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_share_the_arrays(method):
    count = 400_000
    names = np.frombuffer(bytearray(b"some/folder/and/a/name/of/a/video/of/usual/length.mp4" * count), dtype=np.uint8)
    ends = np.arange(1, count + 1, dtype=np.int64) * (len(names) // count)
    index = VideoIndex(names, ends, np.arange(count, dtype=np.int32) % 400, [str(i) for i in range(400)])
    context = multiprocessing.get_context(method)
    results = context.Queue()
    expected = sum(len(index.path(number)) + number % 400 for number in range(0, count, 5)), int(names.sum())
    workers = [context.Process(target=read_everything, args=(index, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=500) for _ in workers]
    for worker in workers:
        worker.join()
    assert [(total, letters) for total, letters, _ in found] == [expected] * 2
    assert max(private for _, _, private in found) < 8  # the arrays weigh 26 MB
    if method == "spawn":
        assert index.names.base is not None and len(index._shared) == 3  # moved once, for both


def test_an_index_is_pickled_whole():
    index = VideoIndex.build(["a", "bc"], [1, 0], ["x", "y"], [(0.0, 1.0), (2.0, 3.5)], ["note"], 7)
    other = pickle.loads(pickle.dumps(index))  # noqa: S301
    assert (other.paths(), other.labels.tolist(), other.span(1)) == (["a", "bc"], [1, 0], (2.0, 3.5))
    assert (other.notes, other.official, other.classes, other.digest()) == (["note"], 7, ["x", "y"], index.digest())


def test_selecting_in_any_order():
    names = [f"{'x' * (number % 13)}{number}" for number in range(70_000)]
    index = VideoIndex.build(names, [number % 5 for number in range(70_000)], list("abcde"), official=80_000)
    keep = np.random.default_rng(0).permutation(70_000)[:69_000]
    chosen = index.select(keep)
    assert chosen.paths() == [names[number] for number in keep]
    assert chosen.labels.tolist() == (keep % 5).tolist()
    assert chosen.official == 80_000
    assert len(index.select(np.array([], dtype=np.int64))) == 0


def test_repeats_and_empty_classes_are_found():
    spans = [(0.0, 1.0), (0.0, 1.0), (1.0, 2.0), (0.0, 1.0), (0.0, 1.0)]
    index = VideoIndex.build(["a", "b", "a", "a", "b"], [0, 2, 0, 0, 2], list("xyz"), spans)
    assert index.repeats() == [(0, 3), (1, 4)]
    assert index.empty_classes() == ["y"]


def test_lists_that_repeat_or_contradict_themselves(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("# comment\na.mp4 0\n\nb.mp4 1\na.mp4 0\n")
    assert read_list(path, tmp_path).notes == ["entries that repeat others: 1, e.g. line 5 (a.mp4, as line 2)"]
    path.write_text("path label\na.mp4 0\n\nb.mp4 1\na.mp4 1\n")
    with pytest.raises(StvideoError, match=r"list\.txt:5: a\.mp4 is in classes 'archery' and 'zumba' \(see line 2\)"):
        read_list(path, tmp_path, ["archery", "zumba"])
    path.write_text("a.mp4 0 0 5\na.mp4 1 5 10\n")  # two parts of one video
    assert read_list(path, tmp_path).notes == []


def test_classes_without_a_video_are_named(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a.mp4 1\n")
    assert read_list(path, tmp_path, ["archery", "zumba"]).notes == ["class 'archery' has no video"]
    names = [f"class {number}" for number in range(9)]
    assert read_list(path, tmp_path, names).notes == ["8 classes have no video: 'class 0', 'class 2', 'class 3', ..."]
