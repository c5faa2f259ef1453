"""Exported programs and ONNX files compute what the model computes, for any number of clips."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import stvideo
from stvideo import StvideoError
from stvideo.weights import export
from stvideo.weights.export import OnnxSession, check_onnx, export_onnx, export_program
from tests.export_cases import CASES, EVERY_METHOD, cases
from tests.reduction.hosts import host

BATCHES = (1, 2, 5)


def one_block():
    return host("space", depth=1)


def differences(model, other):
    """Largest difference between the logits of both for every number of clips, with the same random draws."""
    found = []
    for batch in BATCHES:
        clip = torch.randn(batch, *model.example_shape()[1:])
        with torch.no_grad():
            torch.manual_seed(batch)
            expected = model(clip)
            torch.manual_seed(batch)
            found.append(float((other(clip) - expected).abs().max()))
        assert expected.abs().max() > 0.01  # not merely nothing
    return found


@cases(*EVERY_METHOD, "dense divided", "evit frame divided", "evit lvvit", "stvit swin")
def test_a_program_equals_the_model(case):
    model = CASES[case]()
    assert max(differences(model, export_program(model).module())) <= 1e-5


@cases("evit divided", "stgm divided", "evit lvvit", "stvit swin")
def test_a_model_on_a_gpu_exports_for_any_number_of_clips(case):
    """Tensors without memory stand in for those of a GPU; shapes, devices and guards are worked out all the same."""
    model = CASES[case]()
    frames = model.num_frames
    with FakeTensorMode(allow_non_fake_inputs=True):
        model._apply(lambda weight: torch.empty(weight.shape, dtype=weight.dtype, device="cuda"))
        program = export_program(model)
    (limits,) = program.range_constraints.values()
    assert (limits.lower, limits.upper) == (0, export.MOST_FRAMES // frames)


@cases("evit frame, then stgm", "stvit video swin", "stvitr swin")
def test_onnx_runtime_gives_the_same_logits(case, tmp_path):
    model = CASES[case]()
    session = OnnxSession(export_onnx(model, tmp_path / "model.onnx")[0])
    assert max(differences(model, lambda clip: torch.from_numpy(session(clip.numpy())))) <= 1e-4
    assert check_onnx(model, session) <= 1e-4


@pytest.mark.parametrize("case", ["evit frame divided", pytest.param("evit deit", marks=pytest.mark.slow)])
def test_a_model_made_fast_exports_too(case, tmp_path):
    model = CASES[case]()
    fast = model.optimize_for_inference()
    session = OnnxSession(export_onnx(fast, tmp_path / "model.onnx")[0])
    assert max(differences(model, lambda clip: torch.from_numpy(session(clip.numpy())))) <= 1e-4
    assert max(differences(fast, export_program(fast).module())) <= 1e-5


def shrunk(name):
    """A registered model with everything of its own but the widths."""
    if "swin" in name:
        return stvideo.create_model(name, embed_dim=24, num_heads=(1, 2, 3, 4), img_size=64, num_classes=7)
    size = dict(embed_dim=32, num_heads=2, img_size=64, num_classes=7)
    return stvideo.create_model(name, **size, **({"num_frames": 4} if "timesformer" in name else {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", stvideo.list_models())
def test_every_named_model(name, tmp_path):
    model = shrunk(name).eval()
    if "large" not in name and "base" not in name:  # those differ from the small ones in widths and depth alone
        assert check_onnx(model, OnnxSession(export_onnx(model, tmp_path / "model.onnx")[0]), BATCHES) <= 1e-4
    assert max(differences(model, export_program(model).module())) <= 1e-5


def test_the_file_says_what_it_is_and_is_one_file(tmp_path):
    model = one_block()
    said = {"classes": ["öne", "two"], "preprocess": {"color_order": "bgr", "mean": [0.4, 0.5, 0.6]}}
    files = export_onnx(model, tmp_path / "model.onnx", said)
    assert files == list(tmp_path.iterdir()) == [tmp_path / "model.onnx"]
    session = OnnxSession(files[0])
    assert {key: session.metadata[key] for key in said} == said
    assert session.metadata["input"] == {"name": "clip", "shape": ["batch", 3, 4, 32, 32], "dtype": "float32"}
    (taken,), (given,) = session.session.get_inputs(), session.session.get_outputs()
    assert (taken.name, taken.shape, taken.type) == ("clip", ["batch", 3, 4, 32, 32], "tensor(float)")
    assert (given.name, given.shape) == ("logits", ["batch", 7])


def test_weights_too_large_for_one_file_go_into_one_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "LARGEST_FILE", 1000)
    model = one_block()

    def check(file):
        assert sorted(path.name for path in file.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
        assert check_onnx(model, OnnxSession(file)) <= 1e-4
        assert not (tmp_path / "model.onnx").exists()

    files = export_onnx(model, tmp_path / "model.onnx", check=check)
    assert files == sorted(tmp_path.iterdir()) == [tmp_path / "model.onnx", tmp_path / "model.onnx.data"]
    (tmp_path / "moved").mkdir()  # both find each other by name, wherever they lie
    for file in files:
        file.rename(tmp_path / "moved" / file.name)
    assert check_onnx(model, OnnxSession(tmp_path / "moved" / "model.onnx")) <= 1e-4


def test_other_logits_are_refused_and_nothing_is_left(tmp_path):
    model = one_block()
    (tmp_path / "model.onnx").write_text("an older one")

    def check(file):
        session = OnnxSession(file)
        with torch.no_grad():
            model.head.bias[3] += 1e-3
        check_onnx(model, session)

    with pytest.raises(StvideoError, match=r"random clips are .* away from torch's"):
        export_onnx(model, tmp_path / "model.onnx", check=check)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "an older one"


def test_a_saved_program_needs_no_package_of_ours(tmp_path):
    model = host("divided", {"evit": dict(keep_rate=0.5, layers=(0,))}, depth=1)
    clip = torch.randn(3, 3, 4, 32, 32)
    torch.export.save(export_program(model), tmp_path / "model.pt2")
    np.save(tmp_path / "clip.npy", clip.numpy())
    code = (
        "import sys, numpy, torch\n"
        "sys.modules['stvideo'] = None\n"
        "run = torch.export.load('model.pt2').module()\n"
        "numpy.save('logits.npy', run(torch.from_numpy(numpy.load('clip.npy'))).detach().numpy())\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=500)
    with torch.no_grad():
        assert np.abs(np.load(tmp_path / "logits.npy") - model(clip).numpy()).max() <= 1e-5


def test_what_cannot_be_exported_is_said(tmp_path, monkeypatch):
    model = one_block()
    with pytest.raises(StvideoError, match=r"training mode; call model.eval\(\)"):
        export_program(model.train())
    model.eval()
    with pytest.raises(StvideoError, match=r"bfloat16; use model.float\(\)"):
        export_onnx(one_block().bfloat16(), tmp_path / "model.onnx")
    pyramid = stvideo.create_model("swin_tiny_patch4_window7_224", features_only=True).eval()
    with pytest.raises(StvideoError, match="feature pyramid"):
        export_program(pyramid)
    with pytest.raises(StvideoError, match="cannot be written: No such file or directory"):
        export_onnx(model, tmp_path / "nowhere" / "model.onnx")
    for package in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StvideoError, match=r"onnx is not installed; pip install 'stvideo\[onnx\]'"):
        export_onnx(model, tmp_path / "model.onnx")
    with pytest.raises(StvideoError, match="onnxruntime is not installed"):
        OnnxSession(tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(StvideoError, match="no such file"):
        OnnxSession(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text(json.dumps({}))
    with pytest.raises(StvideoError, match=r"text\.onnx: ONNX Runtime cannot read it"):
        OnnxSession(tmp_path / "text.onnx")
    with pytest.raises(StvideoError, match="has no 'tpu'"):
        OnnxSession(tmp_path / "text.onnx", device="tpu")
