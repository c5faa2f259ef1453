"""The page in a real browser: what is lit, what a click, a key and the slider do, and that nothing is fetched."""

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from stvideo.core.trace import TokenTrace
from stvideo.drawing.geometry import PatchArea
from stvideo.drawing.overlay import paint
from stvideo.drawing.page import draw_page
from stvideo.drawing.states import LayerStates, layer_states
from tests.browser import Browser
from tests.painted_videos import patch_box
from tests.token_traces import CPU, dense_trace, keep_trace, semantic_trace

WIDTH, HEIGHT, GRID = 320, 240, 4
CROP = PatchArea(40, 0, 240, 240, WIDTH, HEIGHT)
PLACE = (2, 1, 3)  # frame, row, column of the only kept patch


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def gray_frames(count: int = 4) -> np.ndarray:
    return np.full((count, HEIGHT, WIDTH, 3), 128, np.uint8)


def kept_once() -> torch.Tensor:
    kept = torch.zeros(4, GRID, GRID, dtype=torch.bool)
    kept[PLACE] = True
    return kept


def two_layers() -> list[LayerStates]:
    """First everything becomes 8 semantic tokens, then half of them are dropped."""
    trace = semantic_trace(4, GRID, GRID, (2, 2, 2), layer=1)
    trace.record(3, "evit", torch.tensor([[0, -1, 1, -1, 2, -1, 3, -1]]), score=torch.rand(1, 8))
    trace.assign.pop("output")
    return layer_states(trace.finish())


def show(browser: Browser, tmp_path, states, frames=None, **options) -> None:
    page = draw_page(gray_frames() if frames is None else frames, states, CROP, "clip.mp4", **options)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    browser.open(tmp_path / "page.html")


def canvas(browser: Browser) -> np.ndarray:
    """Pixels of the large frame, (h, w, 3)."""
    script = """const c = document.getElementById("frame");
        return [c.width, c.height, btoa(Array.from(
            c.getContext("2d").getImageData(0, 0, c.width, c.height).data, (v) => String.fromCharCode(v)).join(""))]"""
    import base64

    width, height, text = browser.run(script)
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[..., :3]


def patch_center(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    left, top, right, bottom = patch_box(CROP.scaled(picture.shape[1], picture.shape[0]), row, column, GRID, GRID)
    return picture[int((top + bottom) / 2), int((left + right) / 2)]


def point_at(browser: Browser, row: int, column: int, click: bool = False) -> None:
    left, top, width, height = browser.run(
        "const r = document.getElementById('frame').getBoundingClientRect(); return [r.left, r.top, r.width, r.height]"
    )
    box = patch_box(CROP.scaled(WIDTH, HEIGHT), row, column, GRID, GRID)
    x, y = (box[0] + box[2]) / 2 / WIDTH, (box[1] + box[3]) / 2 / HEIGHT
    browser.point(left + width * x, top + height * y, click)


@pytest.mark.parametrize("fuse", [True, False])
def test_the_kept_patch_is_lit_at_its_place_and_time_only(browser, tmp_path, fuse):
    show(browser, tmp_path, layer_states(keep_trace(kept_once(), fuse)))
    for t in range(4):
        picture = canvas(browser)
        for row in range(GRID):
            for column in range(GRID):
                plain = np.abs(patch_center(picture, row, column).astype(int) - 128).max() <= 3
                assert plain == ((t, row, column) == PLACE)
        browser.press("right")
    assert not browser.console()


def test_the_page_paints_as_the_package_does(browser, tmp_path):
    """Same colours as in the PNG and MP4 files, away from lines."""
    states = two_layers()
    frames = np.random.default_rng(0).integers(60, 200, (4, 1, 1, 3)).astype(np.uint8) * np.ones_like(gray_frames())
    show(browser, tmp_path, states, frames)
    for layer in (1, 0):
        picture = canvas(browser)
        expected = paint(frames[0], states[layer], 0, CROP)
        expected = expected.repeat(picture.shape[0] // HEIGHT, axis=0).repeat(picture.shape[1] // WIDTH, axis=1)
        for y, x in [(12, 12)] + [(30 + 60 * r, 70 + 60 * c) for r in range(4) for c in range(4)]:
            scale = picture.shape[0] // HEIGHT
            assert np.abs(picture[y * scale, x * scale].astype(int) - expected[y * scale, x * scale]).max() <= 4
        browser.press("up")


def test_scrubbing_layers_and_keys(browser, tmp_path):
    labels = [f"frame {n}" for n in (3, 9, 15, 21)]
    show(browser, tmp_path, two_layers(), frame_labels=labels, frame_numbers=[3, 9, 15, 21])
    assert browser.text("#clock") == "frame 3"
    browser.run("const t = document.getElementById('time'); t.value = 2; t.dispatchEvent(new Event('input'))")
    assert browser.text("#clock") == "frame 15"
    browser.press("right", "right")
    assert browser.text("#clock") == "frame 3"
    browser.press("left")
    assert browser.text("#clock") == "frame 21"
    browser.click("#strip .cell:nth-child(2)")
    assert browser.text("#clock") == "frame 9"
    checked = "return [...document.querySelectorAll('#layers button')].map((b) => b.getAttribute('aria-checked'))"
    assert browser.run(checked) == ["false", "true"]
    browser.click("#layers button:first-child")
    assert browser.run(checked) == ["true", "false"]
    browser.press("down")
    assert browser.run(checked) == ["false", "true"]
    browser.click("#play")
    assert browser.text("#play") == "❚❚"
    browser.click("#play")


def test_pointing_tells_the_token_and_lights_its_other_patches(browser, tmp_path):
    show(browser, tmp_path, two_layers())
    browser.press("up")
    before = canvas(browser)
    point_at(browser, 0, 1)
    assert "row 0, column 1. shared: token 0 carries 8 patches in 2 frames" in browser.text("#patch")
    picture = canvas(browser)
    for row in range(GRID):
        for column in range(GRID):
            dimmed = patch_center(picture, row, column).sum() < 0.7 * patch_center(before, row, column).sum()
            assert dimmed == (row >= 2 or column >= 2)
    point_at(browser, 0, 1, click=True)  # hold it while the mouse goes elsewhere
    point_at(browser, 3, 3)
    assert "row 3, column 3" in browser.text("#patch")
    held = canvas(browser)
    assert patch_center(held, 3, 2).sum() < 0.7 * patch_center(before, 3, 2).sum()
    browser.press("escape")
    browser.press("down")
    point_at(browser, 0, 3)
    assert "dropped: no token carries it any more; score" in browser.text("#patch")


def test_patches_by_keyboard(browser, tmp_path):
    show(browser, tmp_path, layer_states(keep_trace(kept_once(), False)))
    browser.press("d")
    assert "row 2, column 2. dropped" in browser.text("#patch")
    browser.press("right", "right", "w", "d")
    assert "frame 2, row 1, column 3. kept: token 0 carries it alone" in browser.text("#patch")
    browser.press("escape")
    assert browser.text("#patch").startswith("Move over the frame")


def test_toggles_and_heat(browser, tmp_path):
    score = torch.linspace(0, 1, 64).view(4, GRID, GRID)
    show(browser, tmp_path, layer_states(keep_trace(kept_once(), False, score=score)))
    dark = canvas(browser)
    assert patch_center(dark, 0, 0).max() < 60
    browser.click("#show-dropped")
    assert np.abs(patch_center(canvas(browser), 0, 0).astype(int) - 128).max() <= 3
    browser.press("3", "h")
    browser.press("left")  # the last frame has the highest scores
    hot = patch_center(canvas(browser), 3, 3).astype(int)
    assert hot.min() > 100 and hot[0] > hot[2]
    assert browser.run("return document.getElementById('show-heat').checked")
    assert browser.run("return document.getElementById('show-fused').disabled")


def test_dark_and_light(browser, tmp_path):
    show(browser, tmp_path, layer_states(dense_trace(4, GRID, GRID)))
    background = "return getComputedStyle(document.body).backgroundColor"
    first = browser.run(background)
    browser.click("#theme")
    second = browser.run(background)
    assert {first, second} == {"rgb(255, 255, 255)", "rgb(20, 22, 27)"}
    picture = browser.screenshot(tmp_path / "shot.png")
    assert picture.stat().st_size > 10_000


def test_nothing_is_fetched_and_no_name_can_break_out(browser, tmp_path):
    name = "</script><img src=x onerror=\"document.title='hacked'\"> @DATA@ @JS@"
    browser.requests()
    page = draw_page(gray_frames(), two_layers(), CROP, name, name, [(name, 0.5)], [name] * 4)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    browser.open(tmp_path / "page.html")
    assert browser.text("h1") == name and browser.run("return document.title") == name
    assert browser.run("return document.images.length") == 0
    fetched = [url for url in browser.requests() if not url.startswith(("chrome", "data:"))]
    assert fetched == [(tmp_path / "page.html").as_uri()]
    assert not browser.console()


def test_the_data_in_the_page_is_the_trace():
    """Without a browser: every token, state and score is there, and the page names no address."""
    states = two_layers()
    page = draw_page(gray_frames(), states, CROP, "x", predictions=[("a", 0.75)])
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1])
    for layer, row in zip(data["layers"], states, strict=True):
        shape = (-1, layer["rows"], layer["columns"])
        assert layer["step_of_frame"] == [0, 1, 2, 3]
        assert np.array_equal(np.reshape(layer["token"], shape), row.token)
        assert np.array_equal(np.reshape(layer["state"], shape), row.state)
        assert np.array_equal(np.array(layer["palette"])[layer["color"]].reshape(*shape, 3), row.color)
        assert (layer["score"] is None) == (row.score is None)
    assert data["predictions"] == [["a", 0.75]]
    assert not re.search(r"https?://|@import|url\(", page)


def test_tiny_grids_and_patches_that_span_frames(browser, tmp_path):
    trace = TokenTrace.start(1, (2, 1, 1), CPU)
    trace.record(0, "evit", torch.tensor([[0, -1]]))
    show(browser, tmp_path, layer_states(trace.finish(), tubelet_size=2))
    lit = []
    for _ in range(4):
        lit.append(int(canvas(browser)[HEIGHT // 2, WIDTH // 2].max()) > 100)
        browser.press("right")
    assert lit == [True, True, False, False]
