"""The comparison command: paired numbers from two predictions files, or a refusal that says how they differ."""

import csv
import json

import numpy as np
import pytest

from stvideo.compare import main
from stvideo.core.errors import StvideoError

CLASSES = ["left", "right", "up", "down", "near", "far"]


def write(folder, truth, guesses, classes=CLASSES, settings=None, videos=None):
    """An evaluation's files: the guess first, the other classes behind it."""
    folder.mkdir()
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "video", "truth", *(f"top{k}" for k in range(1, 6)), "score1"])
        for number, (t, guess) in enumerate(zip(truth, guesses, strict=True)):
            ranked = [guess, *(c for c in CLASSES if c != guess)][:5]
            writer.writerow([number, (videos or [f"v/{n}.mp4" for n in range(len(truth))])[number], t, *ranked, 0.5])
    with (folder / "per_class.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["number", "class"], *enumerate(classes)])
    (folder / "metrics.json").write_text(json.dumps(settings or {"views": "1x3"}))
    return str(folder)


@pytest.fixture
def truth():
    return [CLASSES[n % 6] for n in range(60)]


def wrong(truth, numbers):
    return [CLASSES[(CLASSES.index(t) + 1) % 6] if n in numbers else t for n, t in enumerate(truth)]


def test_numbers_are_those_of_counting(tmp_path, truth, capsys):
    a = write(tmp_path / "a", truth, wrong(truth, {0, 1, 2}))
    b = write(tmp_path / "b", truth, wrong(truth, {2, *range(10, 22)}))
    assert main([a, b, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    top1 = result["top1"]
    assert (result["videos"], top1["a"], top1["b"]) == (60, pytest.approx(95.0), pytest.approx(100 * 47 / 60))
    assert (top1["only_a"], top1["only_b"]) == (12, 2)
    assert top1["difference"] == pytest.approx(100 * 10 / 60)
    assert top1["low"] < top1["difference"] < top1["high"]
    assert top1["low"] > 0  # 12 against 2
    assert top1["p_value"] == pytest.approx(2 * sum([1, 14, 91]) / 2**14)
    assert main([a, b]) == 0
    text = capsys.readouterr().out
    assert "A - B = +16.67 points, 95 % interval [+" in text
    assert "A alone right on 12 videos, B alone on 2" in text


def test_the_order_of_the_videos_does_not_matter(tmp_path, truth, capsys):
    videos = [f"v/{n}.mp4" for n in range(60)]
    order = np.random.default_rng(0).permutation(60)
    guesses = wrong(truth, {3, 4})
    a = write(tmp_path / "a", truth, guesses)
    b = write(tmp_path / "b", [truth[n] for n in order], [guesses[n] for n in order], videos=[videos[n] for n in order])
    main([a, f"{b}/predictions.csv"])
    assert "got the same videos right" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(tmp_path, truth):
    a = write(tmp_path / "a", truth, truth)

    def refused(name, message, **changes):
        settings = {"truth": truth, "guesses": truth, **changes}
        with pytest.raises(StvideoError, match=message):
            main([a, write(tmp_path / name, **settings)])

    refused("fewer", "not the same videos: 1 are in the first only", truth=truth[:-1], guesses=truth[:-1])
    moved = [f"elsewhere/{n}.mp4" for n in range(60)]
    refused("moved", "60 are in the first only.*file names agree.*data.root", videos=moved)
    refused("order", "another order: class 0 is 'left' and 'right'", classes=["right", "left", *CLASSES[2:]])
    refused("others", "other classes: class 6 is 'missing' and 'back'", classes=[*CLASSES, "back"])
    refused("labels", "another true class of v/0.mp4: 'left' and 'up'", truth=["up", *truth[1:]])


def test_other_views_are_warned_about(tmp_path, truth, caplog):
    a = write(tmp_path / "a", truth, truth)
    b = write(tmp_path / "b", truth, truth, settings={"views": "1x1"})
    assert main([a, b]) == 0
    assert "views '1x3' and '1x1'" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no predictions here; run stvideo.evaluate"),
        ("a,b\n1,2\n", "not a predictions file"),
        ("index,video,truth,top1,score1\n", "no video in it"),
        ("index,video,truth,top1,score1\n0,v\n", ":2: a column is missing"),
        ("index,video,truth,top1,score1\n0,v,a,a,1\n1,v,a,a,1\n", "v comes twice"),
    ],
)
def test_files_that_hold_no_predictions(tmp_path, truth, content, message):
    a = write(tmp_path / "a", truth, truth)
    (tmp_path / "b").mkdir()
    if content is not None:
        (tmp_path / "b" / "predictions.csv").write_text(content)
    with pytest.raises(StvideoError, match=message):
        main([a, str(tmp_path / "b")])


def test_it_takes_two(tmp_path):
    for arguments in ([], ["a"], ["a", "b", "c"], ["a", "b", "top_k=1"]):
        with pytest.raises(StvideoError, match="compare takes two evaluations"):
            main(arguments)
