"""Semantic tokens on Swin: against their slow form, the published costs, the trace, errors."""

from itertools import product
from math import ceil

import pytest
import torch

import stvideo
from stvideo import StvideoError
from stvideo.models.swin.layers import SwinBlock, partition
from stvideo.models.swin.semantic import GenerateBlock, GlobalBlock, LocalBlock, RefineBlock, key_window_starts
from tests.models.swin_small import gradients, shake, small
from tests.models.swin_textbook import gated_centers, generate, max_centers, semantic_layer

NAME = "stvit_swin_tiny_patch4_window7_224"
SMALL = dict(depths=(1, 1, 6, 2))
DIM, HEADS = 8, 2


def test_key_windows_lie_around_their_windows():
    assert key_window_starts(14, 2, 10) == [0, 4]
    assert key_window_starts(7, 1, 10) == [0]
    assert key_window_starts(28, 4, 10) == [0, 5, 12, 18]
    assert key_window_starts(3, 1, 10) == [0]


@pytest.mark.parametrize("pooling", ["max", "gate"])
@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize(("size", "side"), [((14, 14), 3), ((14, 14), 2), ((9, 17), 4), ((3, 5), 2)])
def test_generation_equals_its_slow_form(pooling, shortcut, size, side):
    block = shake(
        GenerateBlock(DIM, HEADS, side=side, window=7, pooling=pooling, shortcut=shortcut, layer_scale=0.7), 0.3
    )
    x = torch.randn(2, 2, *size, DIM)
    rows, columns = (-(-length // 7) * side for length in size)
    trace = stvideo.TokenTrace.start(2, (2, *size), x.device)
    state = block.state_dict()
    with torch.no_grad():
        tokens = block(x, trace, 4)
        for b, t in product(range(2), range(2)):
            frame = x[b, t]
            centers = (
                max_centers(frame, rows, columns) if pooling == "max" else gated_centers(state, frame, rows, columns)
            )
            expected, winner = generate(state, frame, centers, side, 7, 10, HEADS, shortcut)
            assert (tokens[b, t] - expected).abs().max() < 1e-5
            assert torch.equal(trace.assign[4][b, t], winner + t * rows * columns)


def test_refinement_equals_its_slow_form():
    block = shake(RefineBlock(DIM, HEADS, layer_scale=0.7), 0.3)
    s, x = torch.randn(1, 2, 4, 2, DIM), torch.randn(1, 2, 5, 3, DIM)
    trace = stvideo.TokenTrace.start(1, (2, 5, 3), x.device)
    with torch.no_grad():
        tokens = block(s, x, trace, 5)
        for t in range(2):
            own = s[0, t].flatten(0, 1)
            expected, weights = semantic_layer(block.state_dict(), own, torch.cat((own, x[0, t].flatten(0, 1))), HEADS)
            assert (tokens[0, t].flatten(0, 1) - expected).abs().max() < 1e-5
            assert torch.equal(trace.assign[5][0, t].flatten(), weights[:, 8:].argmax(0) + 8 * t)


@pytest.mark.parametrize("over_time", [False, True])
def test_semantic_layers_equal_their_slow_form(over_time):
    x = torch.randn(2, 3, 4, 6, DIM)
    everywhere = shake(GlobalBlock(DIM, HEADS, layer_scale=0.7, over_time=over_time), 0.3)
    locally = shake(LocalBlock(DIM, HEADS, side=2, layer_scale=0.7, over_time=over_time), 0.3)
    with torch.no_grad():
        for block, window in ((everywhere, (4, 6)), (locally, (2, 2))):
            shape = (3 if over_time else 1, *window)
            groups = partition(block(x), shape).flatten(0, 1)
            for group, tokens in zip(groups, partition(x, shape).flatten(0, 1), strict=True):
                expected, _ = semantic_layer(block.state_dict(), tokens, tokens, HEADS)
                assert (group - expected).abs().max() < 1e-5


TABLE = {
    "tiny": {4: 2.99, 9: 3.43, 16: 4.06, "move": 3.14},
    "small": {4: 5.95, 9: 6.53, 16: 7.36, "move": 5.95},
    "base": {4: 10.48, 9: 11.51, 16: 12.97, "move": 10.48},
}


@pytest.mark.parametrize(("size", "row"), [(size, row) for size, rows in TABLE.items() for row in rows])
def test_published_costs(size, row):
    options = dict(move_stgm=True) if row == "move" else dict(tokens_per_window=row)
    with torch.device("meta"):
        model = stvideo.create_model(f"stvit_swin_{size}_patch4_window7_224", **options)
    counted = stvideo.count_macs(model, (1, 3, 224, 224)).total
    # Keys are projected once for the whole map, which the authors' count does per overlapping window.
    assert 0.97 * TABLE[size][row] < counted < 1.005 * TABLE[size][row]


def test_plan_of_the_published_models():
    with torch.device("meta"):
        tiny, small = (stvideo.create_model(f"stvit_swin_{size}_patch4_window7_224") for size in ("tiny", "small"))
    names = {SwinBlock: "swin", GenerateBlock: "g", RefineBlock: "r", LocalBlock: "local", GlobalBlock: "global"}
    kinds = [names[type(block)] for block in tiny.layers[2].blocks]
    assert kinds == ["swin", "swin", "g", "r", "local", "global"]
    assert [block.shift for block in tiny.layers[2].blocks[:2]] == [(0, 0, 0), (0, 3, 3)]
    assert [names[type(block)] for block in tiny.layers[3].blocks] == ["global", "global"]
    assert [names[type(block)] for block in small.layers[2].blocks] == kinds[:2] * 5 + kinds[2:4] + kinds[4:] * 3


@pytest.mark.parametrize(
    ("tokens", "size"), [(4, (224, 224)), (9, (224, 224)), (16, (90, 130)), (1, (33, 20)), (49, (64, 64))]
)
def test_tokens_and_trace_at_any_size(tokens, size):
    model = small(NAME, **SMALL, tokens_per_window=tokens)
    with torch.no_grad():
        logits, trace = model(torch.randn(2, 3, *size), return_trace=True)
        stage3, stage4 = model.stage_outputs(torch.randn(2, 3, *size))[0][2:]
    rows, columns = (ceil(ceil(length / 16) / 7) * model.side for length in size)
    assert logits.shape == (2, 7) and logits.isfinite().all()
    assert stage3.shape == (2, 1, rows, columns, 48) and stage4.shape == (2, 1, rows, columns, 96)
    assert list(trace.assign) == [4, 5, "output"]
    assert trace.method[4] == trace.method[5] == "stgm"
    assert trace.assign[5].shape == (2, 1, -(-size[0] // 16), -(-size[1] // 16))
    assert torch.equal(trace.assign["output"], trace.assign[5])
    assert trace.assign["output"].min() >= 0 and trace.assign["output"].max() < rows * columns


def test_the_trace_is_of_the_attention_that_was_computed():
    model = small(NAME, **SMALL)
    seen = {}
    refine = model.layers[2].blocks[3]
    refine.register_forward_pre_hook(lambda _, args: seen.update(s=args[0], x=args[1]))
    with torch.no_grad():
        _, trace = model(torch.randn(1, 3, 128, 128), return_trace=True)
        own = seen["s"][0, 0].flatten(0, 1)
        memory = torch.cat((own, seen["x"][0, 0].flatten(0, 1)))
        _, weights = semantic_layer(refine.state_dict(), own, memory, 3)
    assert torch.equal(trace.assign["output"].flatten(), weights[:, len(own) :].argmax(0))


def test_trace_changes_no_logits():
    model, image = small(NAME, **SMALL), torch.randn(1, 3, 100, 64)
    with torch.no_grad():
        assert torch.equal(model(image), model(image, return_trace=True)[0])


@pytest.mark.parametrize("options", [{}, dict(pooling="max"), dict(tokens_per_window=4, base_layers=1)])
def test_every_parameter_gets_a_gradient_and_checkpointing_changes_nothing(options):
    model, image = small(NAME, **SMALL, **options, layer_scale=1.0), torch.randn(4, 3, 64, 64)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0  # or the second pass would see other statistics
    assert torch.allclose(gradients(model, image, False), gradients(model, image, True), atol=1e-4)


def test_frames_stay_apart_on_images():
    model = small(NAME, **SMALL)
    clip = torch.randn(1, 3, 3, 64, 64)
    with torch.no_grad():
        whole = model.forward_features(clip).patches
        alone = model.forward_features(clip[:, :, 1]).patches
    assert (whole[:, 1:2] - alone).abs().max() < 1e-5


def test_bfloat16():
    model, image = small(NAME, **SMALL), torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        expected = model(image)
        assert (model.bfloat16()(image.bfloat16()).float() - expected).abs().max() < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(tokens_per_window=8), "tokens_per_window must be a square number"),
        (dict(tokens_per_window=0), "tokens_per_window must be a square number"),
        (dict(tokens_per_window="9"), "tokens_per_window must be a square number"),
        (dict(tokens_per_window=64), "64 is larger than the window of 7x7 = 49"),
        (dict(tokens_per_window=16, window_size=3), "16 is larger than the window of 3x3 = 9"),
        (dict(base_layers=5), "base_layers 5: with the 2 layers"),
        (dict(base_layers=-1), "base_layers -1"),
        (dict(base_layers=1, move_stgm=True), "either move_stgm or base_layers"),
        (dict(depths=(2, 2), num_heads=(1, 2)), "semantic tokens begin in stage 3"),
        (dict(pooling="mean"), "pooling must be one of gate, max"),
        (dict(features_only=True), "use a model with recovery"),
        (dict(reduction="evit"), "takes no token reductions"),
    ],
)
def test_bad_arguments_are_one_clear_line(options, message):
    with pytest.raises(StvideoError, match=message) as error:
        small(NAME, **{**SMALL, **options})
    assert "\n" not in str(error.value)
