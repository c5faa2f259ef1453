"""Maps of what happens inside: features after blocks and attention, dense and reduced."""

import math

import pytest
import torch

import stvideo
from stvideo import StvideoError
from tests.models.swin_small import small
from tests.reduction.hosts import CLIP, KINDS, host

IMAGE = dict(embed_dim=32, depth=4, num_heads=4, img_size=64, num_classes=7)


def after(model, number, clip):
    """The tokens after a block, caught on their way."""
    caught = []
    handle = model.blocks[number].register_forward_hook(lambda _m, _a, out: caught.append(out))
    model(clip)
    handle.remove()
    return caught[0]


@pytest.mark.parametrize("attention", KINDS)
def test_features_after_blocks(attention):
    model, clip = host(attention), torch.randn(CLIP)
    with torch.no_grad():
        tokens, maps = model.forward_intermediates(clip, indices=(3, 0, -3))
        assert torch.equal(model.forward_head(tokens), model(clip))
        for number, x in zip((0, 1, 3), maps, strict=True):
            rows = after(model, number, clip).patches.flatten(1, 2)
            assert torch.equal(x.flatten(2).transpose(1, 2), rows)
        assert [x.shape for x in maps] == [(2, 32, 4, 4, 4)] * 3
        assert torch.equal(model.forward_intermediates(clip, 1, norm=True)[1][0], model.forward_map(clip)[1])
        assert len(model.forward_intermediates(clip)[1]) == 4


def test_dropped_patches_are_zero_and_fused_ones_have_their_token():
    model, clip = host("joint", {"evit": dict(keep_rate=0.5, layers=(1,), fuse=True)}), torch.randn(CLIP)
    with torch.no_grad():
        _, (before, x) = model.forward_intermediates(clip, (0, 2))
        _, trace = model(clip, return_trace=True)
        rows = after(model, 2, clip).patches[:, 0]
    assert before.abs().sum(1).all()
    for b in range(2):
        for place, carrier in enumerate(trace.assign[1][b].flatten().tolist()):
            assert torch.equal(x[b].flatten(1)[:, place], rows[b, carrier])
    drop = host("joint", {"evit": dict(keep_rate=0.5, layers=(1,), fuse=False)})
    with torch.no_grad():
        maps = drop.forward_intermediates(clip, 2)[1]
    assert [int((x.abs().sum(1) == 0).sum()) for x in maps] == [2 * 32, 2 * 32]


def test_blocks_inside_a_reduction_have_no_tokens():
    model, clip = host("divided", {"stgm": dict(layers=(1, 2), grid=(2, 2, 2))}), torch.randn(CLIP)
    with torch.no_grad():
        maps = model.forward_intermediates(clip)[1]
        trace = model(clip, return_trace=True)[1]
    assert len(maps) == 3
    carrier = trace.assign[2][0].flatten()
    same = carrier.unsqueeze(0) == carrier.unsqueeze(1)
    columns = maps[1][0].flatten(1)
    assert torch.equal((columns.unsqueeze(1) == columns.unsqueeze(2)).all(0), same)
    for number in (1, 9):
        with pytest.raises(StvideoError, match=f"no features of block {number}; there are of 0, 2, 3"):
            model.forward_intermediates(clip, [number])
    with pytest.raises(StvideoError, match="no features of block 2"):
        model.attention_maps(clip, 2)


def rows_of(block, x, count, query):
    """Attention of one query in a sequence (L, C) to the tokens behind the prefix, by the textbook: (h, N)."""
    q, k, _ = (block.attn.qkv(block.norm1(x))).chunk(3, dim=-1)
    heads = block.attn.num_heads
    q = q[0] if query == "class" else q[count:].mean(0)
    q, k = q.view(heads, -1), k.view(len(x), heads, -1)
    return torch.stack([(k[:, h] @ q[h] / math.sqrt(q.shape[1])).softmax(0) for h in range(heads)])[:, count:]


@pytest.mark.parametrize("attention", ["joint", "space"])
def test_attention_of_the_class_token(attention):
    model, clip = host(attention), torch.randn(CLIP)
    with torch.no_grad():
        maps = model.attention_maps(clip, 2)
        tokens = after(model, 1, clip)
        for b in range(2):
            rows = [rows_of(model.blocks[2], x, 1, "class") for x in tokens.sequences()[b]]
            torch.testing.assert_close(maps[b].flatten(1), torch.cat(rows, dim=1))
    assert maps.shape == (2, 4, 4, 4, 4)


def test_attention_of_divided_models_sums_to_less_than_one_in_every_frame():
    with torch.no_grad():
        maps = host("divided").attention_maps(torch.randn(CLIP))
    assert maps.shape == (2, 4, 4, 4, 4) and (maps > 0).all() and (maps.sum((3, 4)) < 1).all()


def test_attention_of_the_mean_query():
    torch.manual_seed(0)
    model = stvideo.create_model("deit_tiny_patch16_224_avg", **IMAGE).eval()
    clip = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = model.attention_maps(clip, 1)
        x = after(model, 0, clip).patches[0, 0]
        torch.testing.assert_close(maps[0].flatten(1), rows_of(model.blocks[1], x, 0, "mean"))


def test_attention_after_a_reduction():
    model, clip = host("joint", {"evit": dict(keep_rate=0.5, layers=(1,), fuse=False)}), torch.randn(CLIP)
    with torch.no_grad():
        maps = model.attention_maps(clip)
        trace = model(clip, return_trace=True)[1]
    assert torch.equal(maps[:, 0] == 0, trace.assign[1] < 0)
    with pytest.raises(StvideoError, match="no features of block 4"):
        model.attention_maps(clip, 4)


def test_networks_of_stages_give_the_maps_of_their_stages():
    model, image = small("swin_tiny_patch4_window7_224"), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        tokens, maps = model.forward_intermediates(image, (1, -1))
        outputs, _ = model.stage_outputs(image)
        assert torch.equal(model.forward_head(tokens), model(image))
    assert [x.shape for x in maps] == [(2, 24, 1, 8, 12), (2, 96, 1, 2, 3)]
    assert torch.equal(maps[0], outputs[1].movedim(-1, 1))
    with pytest.raises(StvideoError, match="inside windows"):
        model.attention_maps(image)
