"""From a video file to pictures: the patch that the model kept is lit at its place and time, and nowhere else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import stvideo
from stvideo.core.errors import StvideoError
from stvideo.data.video.decode import probe
from stvideo.drawing.geometry import PatchArea, fit
from stvideo.drawing.sheet import CELL_HEIGHT, CELL_WIDTH
from stvideo.reduction import base
from stvideo.settings import cli
from stvideo.visualize import main
from stvideo.weights.saving import save_model
from tests.browser import Browser
from tests.painted_videos import center_crop, decode, painted_frames, patch_box, write_rotated_video, write_video
from tests.reduction.hosts import host
from tests.reduction.toy_methods import TOYS
from tests.steered import CLASSES, preprocess, save_brightness_model, save_random_model

VIDEOS = Path(__file__).parents[2] / "shared" / "videos"
GRID = 4
SAMPLED = [0, 2, 4, 7]  # what the model sees of 8 frames: 4 frames at stride 2


@pytest.fixture(scope="module")
def brightest(tmp_path_factory) -> Path:
    return save_brightness_model(tmp_path_factory.mktemp("model") / "brightest.safetensors")


def patch_levels(picture: np.ndarray, crop: PatchArea) -> np.ndarray:
    """(GRID, GRID) brightness at the centre of every patch."""
    levels = np.zeros((GRID, GRID))
    for y in range(GRID):
        for x in range(GRID):
            left, top, right, bottom = patch_box(crop, y, x, GRID, GRID)
            middle = picture[int((top + bottom) / 2), int((left + right) / 2)]
            levels[y, x] = middle.mean()
    return levels


def cells_of_row(sheet: np.ndarray, row: int, columns: int, width: int, height: int) -> list[np.ndarray]:
    """The pictures of one row, found by their place counted from the sheet's left and top."""
    cell_width, cell_height = fit(width, height, CELL_WIDTH, CELL_HEIGHT)
    ink = (sheet < 255).any(axis=-1)
    # Row 0 starts where, below the header, a long run of columns is not paper.
    wide = ink[:, 204:].sum(axis=1) >= 0.8 * columns * cell_width  # a white patch looks like paper
    top = int(np.flatnonzero(wide)[0]) + row * (cell_height + 8)
    return [
        sheet[top : top + cell_height, 204 + c * (cell_width + 8) : 204 + c * (cell_width + 8) + cell_width]
        for c in range(columns)
    ]


@pytest.mark.parametrize("width,height", [(64, 48), (96, 64), (48, 80), (65, 49)])
@pytest.mark.parametrize("place", [(4, 0, 0), (2, 1, 3), (7, 3, 2)])
def test_the_kept_patch_is_lit_at_its_place_and_time(tmp_path, brightest, width, height, place):
    video = write_video(tmp_path / "clip.mp4", painted_frames(8, width, height, place))
    info = probe(video)  # an odd size has been made even
    assert main([str(video), f"checkpoint={brightest}", f"output={tmp_path}"]) == 0
    check_pictures(tmp_path, info.width, info.height, place)


def test_rotated_video(tmp_path, brightest):
    place = (4, 0, 3)
    video = write_rotated_video(tmp_path / "clip.mp4", painted_frames(8, 64, 48, place))
    info = probe(video)
    assert info.rotation % 180 == 90 and (info.width, info.height) == (64, 48)
    assert main([str(video), f"checkpoint={brightest}", f"output={tmp_path}"]) == 0
    check_pictures(tmp_path, 64, 48, place)


def check_pictures(folder: Path, width: int, height: int, place: tuple[int, int, int]) -> None:
    """The patch is the only bright one, in the sheet's column and in the overlay's frames that stand for it."""
    column = SAMPLED.index(place[0])
    sheet = np.asarray(Image.open(folder / "clip_tokens.png"))
    for number, cell in enumerate(cells_of_row(sheet, 1, len(SAMPLED), width, height)):
        levels = patch_levels(cell, center_crop(width, height).scaled(cell.shape[1], cell.shape[0]))
        assert [tuple(p) for p in np.argwhere(levels > 70)] == ([place[1:]] if number == column else [])
    frames = decode(folder / "clip_tokens.mp4")
    assert len(frames) == 8
    for number, frame in enumerate(frames):
        nearest = int(np.abs(np.array(SAMPLED) - number).argmin())
        levels = patch_levels(frame, center_crop(width, height))
        assert [tuple(p) for p in np.argwhere(levels > 70)] == ([place[1:]] if nearest == column else [])
        if number == place[0]:
            assert levels.max() > 220


def test_a_long_video_is_covered_by_clips_that_follow_each_other(tmp_path, brightest):
    """20 frames make three clips of 8 (the last one shifted back); each keeps the brightest of its own patches."""
    frames = painted_frames(20, 64, 48, (2, 1, 1))
    for number, place in ((12, (2, 2)), (16, (0, 3))):
        frames[number] = painted_frames(20, 64, 48, (number, *place))[number]
    video = write_video(tmp_path / "clip.mp4", frames)
    assert main([str(video), f"checkpoint={brightest}", f"output={tmp_path}"]) == 0
    drawn = decode(tmp_path / "clip_tokens.mp4")
    lit = {n: [tuple(p) for p in np.argwhere(patch_levels(f, center_crop(64, 48)) > 220)] for n, f in enumerate(drawn)}
    assert len(drawn) == 20
    assert {n: p for n, p in lit.items() if p} == {2: [(1, 1)], 12: [(2, 2)], 16: [(0, 3)]}


def test_gaps_of_a_very_long_video_stay_unpainted(tmp_path, brightest, capsys):
    video = write_video(tmp_path / "clip.mp4", painted_frames(24, 64, 48, (2, 1, 1)))
    assert main([str(video), f"checkpoint={brightest}", f"output={tmp_path}", "visualize.max_clips=2"]) == 0
    assert "2 of 3 clips were run" in capsys.readouterr().out
    drawn = decode(tmp_path / "clip_tokens.mp4")
    inside = [patch_levels(frame, center_crop(64, 48)) for frame in drawn]
    assert all(levels.min() > 90 for levels in inside[8:16])  # the gap
    assert all(levels.min() < 70 for levels in inside[:8] + inside[16:])


@pytest.mark.parametrize(
    "reduction",
    [None, {"evit": dict(keep_rate=0.5, layers=(1, 2))}, {"stgm": dict(layers=(1, 2), grid=(2, 2, 2))},
     {"evit": dict(keep_rate=0.7, layers=(0,)), "stgm": dict(layers=(1, 2), grid=(None, 2, 2))},
     {"random": dict(keep_rate=0.5, layers=(1,))}, {"toy_norm": None}, {"toy_merge": None}],
)  # fmt: skip
def test_every_method_goes_through_the_same_picture_maker(tmp_path, capsys, monkeypatch, reduction):
    for name in reduction or {}:
        if name in TOYS:  # methods that are not of the package: a score, and a merging one
            monkeypatch.setitem(base._REGISTRY, name, TOYS[name])
            reduction = {name: TOYS[name].example(host("divided").reduction_host())}
    model = save_random_model(tmp_path / "model.safetensors", reduction)
    video = write_video(tmp_path / "clip.mp4", painted_frames(10, 64, 48, (4, 1, 1)), fps=30000 / 1001)
    assert main([str(video), f"checkpoint={model}", f"output={tmp_path / 'out'}", "top_k=2"]) == 0
    out = capsys.readouterr().out
    assert ("reduces nothing" in out) == (reduction is None)
    with av.open(str(tmp_path / "out" / "clip_tokens.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.frames == 10 and abs(float(stream.average_rate) - 30000 / 1001) < 1e-3
        assert (stream.width, stream.height) == (64, 48)
    assert Image.open(tmp_path / "out" / "clip_tokens.png").width > 1000
    assert "clip.mp4" in (tmp_path / "out" / "clip_tokens.html").read_text()


def test_a_model_whose_patches_span_frames(tmp_path):
    """Video Swin: four time steps for eight frames, of which the sheet and the page have one column each."""
    model = stvideo.create_model("stvit_video_swin_tiny", num_classes=3, num_frames=8, img_size=112, embed_dim=12,
                                 depths=(1, 1, 6, 1), num_heads=(1, 1, 2, 2))  # fmt: skip
    settings = preprocess(8, 112, stride=1)
    save_model(tmp_path / "m.safetensors", model, {"classes": CLASSES, "preprocess": settings})
    video = write_video(tmp_path / "clip.mp4", painted_frames(8, 64, 48, (4, 1, 1)))
    assert main([str(video), f"checkpoint={tmp_path / 'm.safetensors'}", f"output={tmp_path}"]) == 0
    assert '"step_of_frame":[0,0,1,1,2,2,3,3],"tubelet_size":2' in (tmp_path / "clip_tokens.html").read_text()
    assert len(decode(tmp_path / "clip_tokens.mp4")) == 8 and (tmp_path / "clip_tokens.png").exists()


def test_large_video_is_scaled_down_in_the_overlay(tmp_path, brightest):
    video = write_video(tmp_path / "clip.mp4", painted_frames(8, 640, 320, (4, 3, 0)))
    main([str(video), f"checkpoint={brightest}", f"output={tmp_path}", "visualize.video_side=200"])
    frames = decode(tmp_path / "clip_tokens.mp4")
    assert frames[0].shape == (100, 200, 3)
    levels = patch_levels(frames[4], center_crop(640, 320).scaled(200, 100))
    assert [tuple(p) for p in np.argwhere(levels > 200)] == [(3, 0)]


def test_one_frame_video(tmp_path, brightest):
    video = write_video(tmp_path / "clip.mp4", painted_frames(1, 64, 48, (0, 1, 2)))
    assert main([str(video), f"checkpoint={brightest}", f"output={tmp_path}"]) == 0
    assert len(decode(tmp_path / "clip_tokens.mp4")) == 1


@pytest.mark.parametrize("name", [b"caf\xe9.mp4", b"new\nline.mp4"])
def test_names_in_any_bytes(tmp_path, brightest, name):
    write_video(tmp_path / "clip.mp4", painted_frames(2, 64, 48, (0, 1, 2)))
    (tmp_path / "clip.mp4").rename(tmp_path / os.fsdecode(name))
    assert main([str(tmp_path), f"checkpoint={brightest}", f"output={tmp_path}/out"]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_videos_of_the_same_name_do_not_overwrite_each_other(tmp_path, brightest):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "clip.mp4", painted_frames(2, 64, 48, (0, 1, 2)))
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), f"checkpoint={brightest}", f"output={tmp_path}/out"]) == 0
    assert len(list((tmp_path / "out").iterdir())) == 6


def test_only_the_wanted_files_are_written(tmp_path, brightest):
    video = write_video(tmp_path / "clip.mp4", painted_frames(8, 64, 48, (0, 1, 2)))
    main([str(video), f"checkpoint={brightest}", f"output={tmp_path}/out", "visualize.outputs=[png]"])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["clip_tokens.png"]


def test_the_page_shows_the_patch_where_the_sheet_does(tmp_path, brightest):
    place = (4, 2, 1)
    video = write_video(tmp_path / "clip.mp4", painted_frames(8, 96, 64, place))
    main([str(video), f"checkpoint={brightest}", f"output={tmp_path}", "visualize.outputs=[html]"])
    read = """const c = document.getElementById("frame"), s = c.getContext("2d");
        const [left, top, width, height] = arguments[0].map((v) => v * c.width);
        const found = [];
        for (let y = 0; y < 4; y++) for (let x = 0; x < 4; x++) {
            const at = [left + (x + 0.5) * width / 4, top + (y + 0.5) * height / 4].map(Math.floor);
            if (s.getImageData(at[0], at[1], 1, 1).data[0] > 70) found.push([y, x]);
        }
        return found"""
    crop = center_crop(96, 64)
    with Browser() as browser:
        browser.open(tmp_path / "clip_tokens.html")
        for number in range(4):
            found = browser.run(read, [v / 96 for v in (crop.left, crop.top, crop.width, crop.height)])
            assert found == ([list(place[1:])] if number == SAMPLED.index(place[0]) else [])
            browser.press("right")


def test_the_others_go_on_when_one_fails(tmp_path, brightest, capsys):
    write_video(tmp_path / "good.mp4", painted_frames(2, 64, 48, (0, 1, 2)))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    arguments = [str(tmp_path / n) for n in ("bad.mp4", "missing.mp4", "good.mp4")]
    assert main([*arguments, f"checkpoint={brightest}", f"output={tmp_path / 'out'}"]) == 1
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 3 and "1 of 3 videos visualised, 2 failed" in err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "good_tokens.html",
        "good_tokens.mp4",
        "good_tokens.png",
    ]


@pytest.mark.parametrize(
    "change,message",
    [
        (["clip.mp4", "output=out"], "checkpoint= is missing"),
        (["clip.mp4", "checkpoint=MODEL"], "output= is missing"),
        (["checkpoint=MODEL", "output=out"], "no video given"),
        (["none.mp4", "checkpoint=MODEL", "output=out"], r"none\.mp4: .*no such file"),
        (["text.mp4", "checkpoint=MODEL", "output=out"], r"text\.mp4: unreadable video"),
        (["clip.mp4", "checkpoint=none", "output=out"], "no such checkpoint"),
        (["clip.mp4", "checkpoint=text.mp4", "output=out"], "not a PyTorch or safetensors file"),
        (["clip.mp4", "checkpoint=MODEL", "output=text.mp4/out"], "cannot write there"),
        (["clip.mp4", "checkpoint=MODEL", "output=text.mp4"], r"cannot write there \(File exists\)"),
        (["clip.mp4", "checkpoint=MODEL", "output=out", "visualize.layer=3"], "layers with one: 0"),
        (["clip.mp4", "checkpoint=MODEL", "output=out", "visualize.colums=3"], "did you mean 'visualize.columns'"),
        (["clip.mp4", "checkpoint=MODEL", "output=out", "visualize.columns=0"], "columns=0: must be above 0"),
        (["clip.mp4", "checkpoint=MODEL", "output=out", "visualize.max_clips=-1"], "max_clips=-1: must be above 0"),
        (["clip.mp4", "checkpoint=MODEL", "output=out", "data.flip=true"], "data.flip: has no effect"),
        (["clip.mp4", "checkpoint=MODEL", "output=out", "visualize.outputs=[pgn]"], "did you mean 'png'"),
        (["clip.mp4", "checkpoint=MODEL", "output=out", "visualize.outputs=[gif]"], "choose from png, mp4, html"),
        (["clip.mp4", "checkpoint=MODEL", "output=out", "visualize.outputs=[]"], "choose from png, mp4, html"),
        (["*.avi", "checkpoint=MODEL", "output=out"], "no file matches"),
        (["empty", "checkpoint=MODEL", "output=out"], "no video file in this folder"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path, monkeypatch, brightest, change, message):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", painted_frames(2, 64, 48, (0, 1, 2)))
    (tmp_path / "text.mp4").write_text("this is text")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StvideoError, match=message) as caught:
        main([text.replace("MODEL", str(brightest)) for text in change])
    assert "\n" not in str(caught.value)


def test_the_command_ends_with_status_2_and_without_a_traceback(tmp_path, brightest):
    command = [sys.executable, "-m", "stvideo.visualize", "none.mp4", f"checkpoint={brightest}", f"output={tmp_path}/o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"stvideo: error: none\.mp4: .*\n", done.stderr)
    assert cli.EXIT_USER_ERROR == 2


@pytest.mark.parametrize(
    "name", ["nasa_13013_rotated.mp4", "testsrc2_odd_height_and_width_mpeg2.mp4", "video_90.mov", "h265_video.mp4"]
)
def test_real_files(tmp_path, name):
    if not (VIDEOS / name).exists():
        pytest.skip(f"no {VIDEOS / name} here")
    model = save_random_model(tmp_path / "model.safetensors", {"stgm": dict(layers=(1, 2), grid=(2, 2, 2))})
    assert main([str(VIDEOS / name), f"checkpoint={model}", f"output={tmp_path}"]) == 0
    info = probe(VIDEOS / name)
    frames = decode(tmp_path / f"{Path(name).stem}_tokens.mp4")
    assert len(frames) == info.num_frames
    assert frames[0].shape == (info.height + info.height % 2, info.width + info.width % 2, 3)
