"""convert: what comes out is the same model, says what it is, and nothing is overwritten or half converted."""

import argparse
import hashlib
import re
import sys

import pytest
import timm
import torch

import stvideo
from stvideo import StvideoError, load_model
from stvideo.convert import main, read_request
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.settings import cli
from stvideo.weights import export
from stvideo.weights.conversion import convert
from stvideo.weights.export import OnnxSession
from stvideo.weights.reading import read_checkpoint
from stvideo.weights.saving import save_model

DEIT = "deit_tiny_patch16_224"


@pytest.fixture(scope="module")
def deit(tmp_path_factory):
    """A DeiT-T as its authors save it, with the namespace of their arguments; (path, the model itself)."""
    torch.manual_seed(1)
    model = timm.create_model(DEIT, num_classes=7).eval()
    path = tmp_path_factory.mktemp("upstream") / "deit.pth"
    torch.save({"model": model.state_dict(), "args": argparse.Namespace(lr=1e-3)}, path)
    return path, model


def same_output(first, second, shape):
    x = torch.randn(shape)
    with torch.no_grad():
        return torch.allclose(first.eval()(x), second.eval()(x), atol=1e-5)


def test_an_upstream_image_model(tmp_path, deit):
    source, upstream = deit
    report = convert(source, tmp_path / "deit.safetensors").report
    assert not report.missing
    assert not report.unexpected
    model = load_model(tmp_path / "deit.safetensors")
    metadata = model.metadata
    assert same_output(model, upstream, (2, 3, 224, 224))
    assert metadata["model"]["name"] == DEIT
    assert metadata["preprocess"]["mean"] == [0.485, 0.456, 0.406]
    assert metadata["preprocess"]["num_frames"] == 1
    assert len(metadata["classes"]) == 7
    assert metadata["source"]["file"] == "deit.pth"
    assert metadata["source"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deit.md", "deit.safetensors"]


def test_the_card_says_what_the_file_is(tmp_path, deit):
    source, _ = deit
    convert(source, tmp_path / "deit.safetensors")
    card = (tmp_path / "deit.md").read_text()
    model = load_model(tmp_path / "deit.safetensors")
    parameters = sum(p.numel() for p in model.parameters())
    gmacs = stvideo.count_macs(model, (1, 3, 1, 224, 224)).total
    facts = [f"{parameters:,}", f"{gmacs:.4g} GMACs", hashlib.sha256(source.read_bytes()).hexdigest(), DEIT, "deit.pth"]
    for fact in (*facts, 'stvideo.load_model("deit.safetensors")', "mean: [0.485"):
        assert fact in card


def test_an_official_timesformer(tmp_path):
    source = stvideo.create_model(
        "timesformer_base_patch16_224", embed_dim=128, depth=2, num_heads=2, num_classes=174, num_frames=4, img_size=32
    )
    torch.save({"model_state": {f"model.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "ssv2.pyth")
    convert(tmp_path / "ssv2.pyth", tmp_path / "out.safetensors")
    model = load_model(tmp_path / "out.safetensors")
    metadata = model.metadata
    assert same_output(model, source, (1, 3, 4, 32, 32))
    assert metadata["preprocess"]["color_order"] == "bgr"


def test_a_variant_by_name_at_another_size(tmp_path, deit, capsys):
    source, _ = deit
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\nf\n\ng\n")
    target = tmp_path / "evit.safetensors"
    options = ["model=evit_deit_tiny_patch16_224", "keep_rate=0.5", "img_size=256", f"classes={tmp_path}/names.txt"]
    assert main([str(source), str(target), *options, "mean=[0.5,0.5,0.5]"]) == 0
    assert "1 resized (pos_embed)" in capsys.readouterr().out
    model = load_model(target)
    metadata = model.metadata
    assert model.reductions["evit"].keep_rates == (0.5,) * 3
    assert model.img_size == (256, 256)
    assert metadata["classes"] == list("abcdefg")
    assert metadata["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    assert metadata["preprocess"]["std"] == [0.229, 0.224, 0.225]
    assert metadata["preprocess"]["img_size"] == 256


def test_our_own_file_keeps_its_description(tmp_path):
    source = stvideo.create_model(
        "stvit_timesformer_tiny_patch16_224",
        **dict(embed_dim=32, depth=3, num_heads=2, num_classes=2, num_frames=2, img_size=32, layers=(1, 2)),
        grid=(None, 1, 1),
    )
    preprocess = Preprocessing.from_dict({"img_size": 32, "num_frames": 2}).to_dict()
    said = {"classes": ["x", "y"], "preprocess": preprocess, "step": 17}
    save_model(tmp_path / "run.safetensors", source, said)
    convert(tmp_path / "run.safetensors", tmp_path / "out.safetensors")
    metadata = read_checkpoint(tmp_path / "out.safetensors").metadata
    assert {key: metadata[key] for key in said} == said
    model = load_model(tmp_path / "out.safetensors")
    assert same_output(model, source, (1, 3, 2, 32, 32))


def test_nothing_is_overwritten_unasked(tmp_path, deit):
    target, card = tmp_path / "out.safetensors", tmp_path / "out.md"
    card.write_text("mine")
    with pytest.raises(StvideoError, match=r"out\.md: exists already.*overwrite=true"):
        convert(deit[0], target)
    assert card.read_text() == "mine"
    assert not target.exists()
    convert(deit[0], target, read_request(["overwrite=true"]))
    before = target.read_bytes()
    with pytest.raises(StvideoError, match=r"out\.safetensors: exists already"):
        convert(deit[0], target)
    with pytest.raises(StvideoError, match="same file"):
        convert(target, target, read_request(["overwrite=true"]))
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=deit_small_patch16_224"], "cls_token is 1x1x192 in the file and 1x1x384 in the model"),
        (["model=timesformer_tiny_patch16_224"], "weights are missing"),
        (["model=stvit_deit_tiny_patch16_224"], "missing"),
        (["model=deit_tyny_patch16_224"], "did you mean"),
        (["num_classes=9"], "missing, e.g. head"),
        (["keep_rat=1"], "unknown argument 'keep_rat'"),
        (["mean=abc"], "data.mean"),
        (["overwrite=maybe"], "expected true or false"),
        (["classes=nowhere.txt"], "nowhere.txt: no such file"),
    ],
)
def test_a_wrong_request_writes_nothing(tmp_path, deit, overrides, message):
    with pytest.raises(StvideoError) as error:
        main([str(deit[0]), str(tmp_path / "out.safetensors"), *overrides])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_class_names_must_fit_the_head(tmp_path, deit):
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(StvideoError, match="2 class names for a head of 7 classes"):
        main([str(deit[0]), str(tmp_path / "out.safetensors"), f"classes={tmp_path}/names.txt"])


def test_weights_without_a_place_are_named(tmp_path, deit, capsys):
    state = {**deit[1].state_dict(), "decoder.weight": torch.zeros(3)}
    torch.save(state, tmp_path / "more.pth")
    main([str(tmp_path / "more.pth"), str(tmp_path / "out.safetensors"), f"model={DEIT}"])
    assert "no place for 1 of its weights, left out: decoder.weight" in capsys.readouterr().err


def test_a_file_of_no_known_model(tmp_path):
    torch.save({"some.weight": torch.zeros(3)}, tmp_path / "odd.pth")
    with pytest.raises(StvideoError, match="give model=NAME"):
        convert(tmp_path / "odd.pth", tmp_path / "out.safetensors")


@pytest.mark.parametrize("arguments", [["only_one.pth"], ["a.pth", "b.pt"], ["absent.pth", "b.safetensors"]])
def test_the_command_ends_with_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.run(main, arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("stvideo: error: ")
    assert error.count("\n") == 1


def run_file(folder):
    """A trained model's file, as small as they come; (path, the model, what was saved with it)."""
    model = stvideo.create_model(
        "evit_timesformer_tiny_patch16_224",
        **dict(embed_dim=32, depth=2, num_heads=2, num_classes=3, num_frames=2, img_size=32, layers=(0,)),
        keep_rate=0.5,
    )
    preprocess = {"img_size": 32, "num_frames": 2, "color_order": "bgr", "mean": [0.4] * 3, "std": [0.2] * 3}
    said = {"classes": ["x", "y", "z"], "preprocess": Preprocessing.from_dict(preprocess).to_dict(), "step": 17}
    save_model(folder / "run.safetensors", model, said)
    return folder / "run.safetensors", model.eval(), said


def test_onnx_says_what_it_is_and_gives_the_same_logits(tmp_path, capsys):
    source, model, said = run_file(tmp_path)
    assert main([str(source), str(tmp_path / "out.onnx")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"ONNX Runtime's logits of random clips are within \d\.\de-0\d of torch's", printed)
    assert f"written: {tmp_path}/out.onnx, {tmp_path}/out.onnx.md" in printed
    session = OnnxSession(tmp_path / "out.onnx")
    assert {key: session.metadata[key] for key in said} == said
    assert session.metadata["model"]["name"] == "timesformer_tiny_patch16_224"
    assert session.metadata["model"]["reduction"]["evit"]["keep_rate"] == 0.5
    assert session.metadata["source"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    for batch in (1, 2, 5):
        clip = torch.randn(batch, 3, 2, 32, 32)
        with torch.no_grad():
            assert torch.allclose(torch.from_numpy(session(clip.numpy())), model(clip), atol=1e-4)

    # The card's own lines, run on the pixels of a batch of clips.
    code = re.search(r"```python\n(.*?)```", (tmp_path / "out.onnx.md").read_text(), re.DOTALL)[1]
    frames = torch.randint(0, 256, (2, 2, 32, 32, 3), dtype=torch.uint8)
    code = code.replace('"out.onnx"', repr(str(tmp_path / "out.onnx"))).replace("frames = ...", "frames = pixels")
    names = {"pixels": frames.numpy()}
    exec(code, names)
    with torch.no_grad():
        expected = model(((frames / 255 - 0.4) / 0.2).permute(0, 4, 1, 2, 3))
    assert torch.allclose(torch.from_numpy(names["logits"]), expected, atol=1e-4)

    with pytest.raises(StvideoError, match=r"out\.onnx: exists already"):
        main([str(source), str(tmp_path / "out.onnx")])
    with pytest.raises(StvideoError, match="give the checkpoint that it was made from"):
        load_model(tmp_path / "out.onnx")
    assert read_checkpoint(source).metadata == {**said, "model": read_checkpoint(source).metadata["model"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.onnx", "out.onnx.md", "run.safetensors"]


def test_onnx_that_does_not_agree_is_not_written(tmp_path, monkeypatch):
    source, _, _ = run_file(tmp_path)
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    with pytest.raises(StvideoError, match=r"out\.onnx: not written: ONNX Runtime's logits"):
        main([str(source), str(tmp_path / "out.onnx")])
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


def test_onnx_of_a_model_by_name_has_random_weights_and_says_so(tmp_path, capsys):
    size = ["embed_dim=32", "depth=1", "num_heads=2", "num_classes=3", "img_size=32", "layers=[0]"]
    assert main(["evit_deit_tiny_patch16_224", str(tmp_path / "speed.onnx"), *size, "keep_rate=0.5"]) == 0
    assert "the weights are random" in capsys.readouterr().err
    assert "Not trained: random weights" in (tmp_path / "speed.onnx.md").read_text()
    session = OnnxSession(tmp_path / "speed.onnx")
    assert session.shape == (3, 1, 32, 32)
    assert session.metadata["model"]["reduction"]["evit"]["keep_rate"] == 0.5
    with pytest.raises(StvideoError, match="did you mean 'deit_tiny_patch16_224'"):
        main(["deit_tiny_patch16_22", str(tmp_path / "other.onnx")])
    with pytest.raises(StvideoError, match="no such checkpoint"):  # a checkpoint of random weights helps nobody
        main(["deit_tiny_patch16_224", str(tmp_path / "other.safetensors")])


def test_without_the_onnx_packages(tmp_path, monkeypatch, capsys):
    source, _, _ = run_file(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        assert main([str(source), str(tmp_path / "out.onnx")]) == 0
    assert "not compared, onnxruntime is not installed; pip install 'stvideo[onnx]'" in capsys.readouterr().err
    assert OnnxSession(tmp_path / "out.onnx").metadata["classes"] == ["x", "y", "z"]
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(StvideoError, match=r"onnxscript is not installed; pip install 'stvideo\[onnx\]'"):
        main([str(source), str(tmp_path / "other.onnx")])
