"""Dumbbell units: semantic tokens in between, every patch back at the end."""

import pytest
import torch

import stvideo
from stvideo import StvideoError
from stvideo.core.tokens import Tokens
from tests.reduction.hosts import CLIP, KINDS, host
from tests.textbook import attention, feed_forward, layer_norm, mlp, stgm_divided, temporal

UNIT = dict(layers=(0, 1, 2, 3), grid=(2, 2, 2))


def test_equals_the_textbook_form():
    model = host("divided", {"stvitr": UNIT})
    state = model.state_dict()
    torch.manual_seed(5)
    patches, cls = torch.randn(4, 16, 32), torch.randn(32)
    with torch.no_grad():
        tokens = Tokens(patches=patches[None], prefix=cls.view(1, 1, 1, 32), grid=(4, 4, 4))
        out = model.reductions["stvitr"]("replace", 0, tokens, model.blocks)

        prefix = "reductions.stvitr.units.0"
        c, s, _ = stgm_divided(state, f"{prefix}.stgm", ["blocks.0", "blocks.1"], cls, patches, (4, 4), (2, 2, 2), 4)
        s = temporal(state, "blocks.2", s, 4)  # one semantic block
        outputs, rows = [], []
        for k in range(2):
            x = layer_norm(state, "blocks.2.norm1", torch.cat((c[None], s[k])))
            y = attention(state, "blocks.2.attn", x, x, 4)
            outputs.append(y[0])
            rows.append(s[k] + y[1:])
        c = feed_forward(state, "blocks.2", c + torch.stack(outputs).mean(0))
        s = feed_forward(state, "blocks.2", torch.stack(rows))
        s = temporal(state, "blocks.3", s, 4)  # recovery
        outputs, rows = [], []
        for t in range(4):
            query = layer_norm(state, "blocks.3.norm1", torch.cat((c[None], patches[t])))
            memory = torch.cat((query[:1], layer_norm(state, "blocks.3.norm1", s[t // 2])))
            y = attention(state, "blocks.3.attn", query, memory, 4) * state[f"{prefix}.attn_scale.gamma"]
            outputs.append(y[0])
            rows.append(patches[t] + y[1:])
        c, x = c + torch.stack(outputs).mean(0), torch.stack(rows)
        scale = state[f"{prefix}.mlp_scale.gamma"]
        c = c + scale * mlp(state, "blocks.3.mlp", layer_norm(state, "blocks.3.norm2", c))
        x = x + scale * mlp(state, "blocks.3.mlp", layer_norm(state, "blocks.3.norm2", x))
    assert (out.prefix[0, 0, 0] - c).abs().max() < 1e-4
    assert (out.patches[0] - x).abs().max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_every_patch_is_its_own_token_again_and_has_a_feature(kind):
    model = host(kind, {"stvitr": UNIT})
    clip = torch.randn(2, 3, 4, 40, 48)
    with torch.no_grad():
        logits, features = model.forward_map(clip)
        plain, trace = model(clip, return_trace=True)
    assert torch.allclose(plain, logits, atol=1e-6)
    assert features.shape == (2, 32, 4, 5, 6)
    own = torch.arange(120).view(1, 4, 5, 6).expand(2, -1, -1, -1)
    assert torch.equal(trace.assign["output"], own)
    assert int(trace.assign[2].max()) < 8  # semantic tokens in between


def test_features_are_in_their_places():
    model = host("space")
    clip = torch.randn(1, 3, 3, 32, 40)
    with torch.no_grad():
        _, features = model.forward_map(clip)
        tokens = model.forward_features(clip)
    expected = model.norm(tokens.patches)[0, 2, 1 * 5 + 4]
    assert torch.allclose(features[0, :, 2, 1, 4], expected, atol=1e-6)


def test_a_reduction_that_does_not_recover_has_no_map():
    for reduction in ({"evit": dict(keep_rate=0.5)}, {"stgm": dict(layers=(1, 2), grid=(2, 2, 2))}):
        with pytest.raises(StvideoError, match="'stvitr'"):
            host("divided", reduction).forward_map(torch.randn(CLIP))


def test_the_named_model_keeps_resolution_at_a_third_less():
    with torch.device("meta"):
        model = stvideo.create_model("stvitr_timesformer_base_patch16_224", grid=(None, 7, 7), num_classes=400)
    assert model.reductions["stvitr"].starts == [1, 7]
    dense = stvideo.remove_reduction(stvideo.create_model("timesformer_base_patch16_224", num_classes=400))
    share = stvideo.count_macs(model, (1, 3, 8, 224, 224)).total / stvideo.count_macs(dense, (1, 3, 8, 224, 224)).total
    assert share < 0.67


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(layers=(1, 2)), "two blocks of semantic token generation"),
        (dict(layers=(0, 2, 3)), "run of blocks from 0 is too short"),
        (dict(layers=(1, 2, 3), grid=(9, 9, 9)), "larger than the model's"),
    ],
)
def test_recovery_without_semantic_tokens_is_one_clear_line(options, message):
    with pytest.raises(StvideoError, match=message):
        host("divided", {"stvitr": options})
