"""Arguments of the shared ViT against textbook forms: tubelets, prefix, positions, feed-forward, pooling."""

import pytest
import torch

import stvideo
from stvideo import StvideoError
from stvideo.core.rope import Rope
from stvideo.models.vit import VisionTransformer
from stvideo.weights.export import export_program
from tests.models import vit_textbook as textbook

HEADS, DIM, DEPTH = 2, 24, 2
SMALL = dict(img_size=(16, 24), patch_size=8, num_frames=4, embed_dim=DIM, depth=DEPTH, num_heads=HEADS, num_classes=5)
CLIP = (2, 3, 4, 16, 24)
NO_CLASS = dict(class_token=False, global_pool="avg")


def vit(**options):
    torch.manual_seed(0)
    model = VisionTransformer(**{**SMALL, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def slow(model, clip, options):
    """Logits of one clip (3, T, H, W), or the feature without a head."""
    state = {name: value.detach() for name, value in model.state_dict().items()}
    eps, kind, pooling = options.get("norm_eps", 1e-6), options.get("mlp", "gelu"), options.get("global_pool", "token")
    positions = options.get("pos_embed", "learned")
    grid = textbook.patches(clip, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"])
    frames, rows, columns, _ = grid.shape
    prefix = [state[name][0] for name in ("cls_token", "reg_token") if name in state]
    prefix = torch.cat(prefix) if prefix else torch.zeros(0, DIM)
    count = len(prefix)
    first = 0 if options.get("no_embed_class") else count
    for t in range(frames):
        for y in range(rows):
            for x in range(columns):
                flat = (t * rows + y) * columns + x
                if positions == "learned":
                    grid[t, y, x] += state["pos_embed"][0, first + y * columns + x]
                elif positions == "space_time":
                    grid[t, y, x] += state["pos_embed"][0, first + flat]
                elif positions == "sincos":
                    grid[t, y, x] += textbook.sinusoid(flat, DIM)
    if positions in ("learned", "space_time") and first:
        prefix = prefix + state["pos_embed"][0, :count]

    def turn(vector, n):
        place = torch.tensor([[[n - count if n >= count else -1]]])
        rope = Rope(options["rope"], DIM // HEADS, (rows, columns))
        return rope.rotate(vector.view(1, 1, 1, -1), place, (frames, rows, columns), (frames, rows, columns)).flatten()

    x = torch.cat((prefix, grid.flatten(0, 2)))
    for i in range(DEPTH):
        x = textbook.block(x, state, f"blocks.{i}", HEADS, eps, kind, turn if options.get("rope") else None)
    if pooling == "fc_norm":
        feature = textbook.norm(x[count:].mean(0), state, "fc_norm", eps)
    else:
        x = textbook.norm(x, state, "norm", eps)
        mean = x[count:].mean(0)
        if pooling == "attentive":
            feature = textbook.attentive(x[count:], state, HEADS, eps)
        else:
            feature = {"token": x[0], "avg": mean, "token_avg": torch.cat((x[0], mean))}[pooling]
    return state["head.weight"] @ feature + state["head.bias"]


CASES = {
    "plain": {},
    "tubelets": dict(tubelet_size=2),
    "registers": dict(num_registers=4),
    "registers beside positions": dict(num_registers=3, no_embed_class=True),
    "registers without a class token": dict(num_registers=2, **NO_CLASS),
    "space-time positions": dict(pos_embed="space_time", tubelet_size=2),
    "sinusoid": dict(pos_embed="sincos", tubelet_size=2, **NO_CLASS),
    "axial rotary": dict(rope="axial", pos_embed="none", num_registers=1, qkv_bias="qv"),
    "rotary of V-JEPA 2": dict(rope="vjepa2", pos_embed="none", tubelet_size=2, **NO_CLASS),
    "swiglu": dict(mlp="swiglu", mlp_ratio=3),
    "tanh GELU": dict(mlp="gelu_tanh"),
    "biases of queries and values": dict(qkv_bias="qv", norm_eps=1e-3),
    "mean, then norm": dict(class_token=False, global_pool="fc_norm"),
    "class token and mean": dict(global_pool="token_avg"),
    "attentive pooling": dict(class_token=False, global_pool="attentive"),
}


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_equals_the_textbook(options):
    model, clip = vit(**options), torch.randn(CLIP)
    expected = torch.stack([slow(model, one, options) for one in clip])
    with torch.no_grad():
        torch.testing.assert_close(model(clip), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model.optimize_for_inference()(clip), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_takes_other_sizes_trains_and_counts(options):
    model = vit(**options).train()
    model.set_grad_checkpointing()
    model(torch.randn(1, 3, 6, 32, 40)).square().sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
    assert stvideo.count_macs(model, model.example_shape()).total > 0
    assert model.reduction_host().num_prefix == model.num_prefix
    assert all(name in dict(model.named_parameters()) for name in model.no_weight_decay() & set(model.state_dict()))


@pytest.mark.parametrize("attention", ["joint", "space"])
@pytest.mark.parametrize("rope", ["axial", "vjepa2"])
@pytest.mark.parametrize(
    "reduction",
    [
        {"evit": dict(keep_rate=0.5, layers=(0,), fuse=True)},
        {"stgm": dict(layers=(1, 2), grid=(2, 1, 2))},
        {"stvitr": dict(layers=(1, 2, 3), grid=(None, 1, 2))},
    ],
    ids=lambda r: next(iter(r)),
)
def test_rotary_positions_survive_reductions(attention, rope, reduction):
    model = vit(depth=4, rope=rope, pos_embed="none", attention=attention, num_registers=2)
    for method, options in reduction.items():
        stvideo.apply_reduction(model, method, **options)
    clip = torch.randn(3, *CLIP[1:])
    with torch.no_grad():
        logits = model(clip)
        assert torch.equal(logits, model(clip, return_trace=True)[0])
        torch.testing.assert_close(logits, torch.cat([model(one) for one in clip.split(1)]), atol=1e-5, rtol=1e-5)
        for block in model.blocks:
            block.rope = None
        assert (model(clip) - logits).abs().max() > 1e-3


@pytest.mark.parametrize("rope", ["axial", "vjepa2"])
def test_kept_tokens_turn_as_they_did_among_all(rope):
    """Attention among some tokens equals attention among all in which the others are masked."""
    model = vit(rope=rope, pos_embed="none")
    block = model.blocks[0]
    with torch.no_grad():
        tokens = model.embed(torch.randn(CLIP))
        kept = torch.stack([torch.randperm(24)[:10] for _ in range(2)]).unsqueeze(1)
        valid = torch.zeros(2, 1, 24, dtype=torch.bool).scatter(2, kept, True)
        few, _ = block.mix_space(tokens.gather(kept))
        all_of_them, _ = block.mix_space(tokens.replace(valid=valid))
    torch.testing.assert_close(few.patches, all_of_them.gather(kept).patches, atol=1e-5, rtol=1e-5)


def test_semantic_tokens_turn_by_the_centre_of_their_window():
    """On a semantic grid as fine as the patches, centres are at the patches' own places."""
    model = vit(rope="axial", pos_embed="none", **NO_CLASS)
    block = model.blocks[0]
    x = torch.randn(2, HEADS, 24, DIM // HEADS)
    with torch.no_grad():
        tokens = model.embed(torch.randn(CLIP))
        fine = tokens.replace(grid=tokens.grid)
        coarse = tokens.replace(patches=tokens.patches[:, :, :4], grid=(4, 1, 1))
        assert torch.equal(block.rotate(x, fine), block.rotate(x, tokens))
        turned = block.rotate(x[:, :, :4], coarse)
        middle = block.rope.rotate(x[:, :, :4], torch.arange(4).view(1, 1, 4) * 9 + 4, (4, 3, 3), (4, 3, 3))
    assert torch.allclose(turned, middle, atol=1e-6)  # the middle of an odd frame is the middle of any


def test_the_keys_have_no_bias():
    model = vit(qkv_bias="qv", layer_scale=0.5)
    assert sorted(name for name, _ in model.blocks[0].attn.named_parameters()) == [
        "proj.bias",
        "proj.weight",
        "q_bias",
        "qkv.weight",
        "v_bias",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(tubelet_size=3), "4 frames are not divisible by the tubelet size 3; the nearest number that is: 3"),
        (dict(tubelet_size=0), "tubelet size 0"),
        (dict(pos_embed="sin"), "pos_embed must be one of learned, space_time, sincos, none"),
        (dict(rope="rotary"), "rope must be one of axial, vjepa2"),
        (dict(rope="axial", num_heads=4), "a multiple of 4"),
        (dict(mlp="relu"), "mlp must be one of"),
        (dict(global_pool="map"), "global_pool must be one of"),
        (dict(global_pool="token_avg", class_token=False), "needs class_token=True"),
        (dict(global_pool="token", class_token=False), "needs class_token=True"),
        (dict(num_registers=-1), "num_registers -1"),
        (dict(qkv_bias="kv"), "qkv_bias must be"),
        (dict(num_heads=5), "not divisible by num_heads 5"),
        (dict(depth=0), "depth 0"),
        (dict(attention="divided"), "attention must be one of joint, space"),
    ],
)
def test_bad_arguments_are_one_clear_line(options, message):
    with pytest.raises(StvideoError, match=message) as caught:
        VisionTransformer(**{**SMALL, **options})
    assert "\n" not in str(caught.value)


def test_clips_that_tubelets_do_not_divide_are_one_clear_line():
    with pytest.raises(StvideoError, match=r"5 frames are not divisible by the tubelet size 2; .*: 4"):
        vit(tubelet_size=2)(torch.randn(1, 3, 5, 16, 24))


@pytest.mark.parametrize("case", ["axial rotary", "rotary of V-JEPA 2", "attentive pooling"])
def test_exports_for_any_batch(case):
    model, clips = vit(**CASES[case]), torch.randn(3, *CLIP[1:])
    with torch.no_grad():
        torch.testing.assert_close(export_program(model).module()(clips), model(clips))
