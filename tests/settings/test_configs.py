"""Every ready configuration is readable, runs with the command in its first line, and its model can be built."""

import subprocess
from pathlib import Path

import pytest
import torch

from stvideo.core.macs import count_macs
from stvideo.settings.checks import check_config
from stvideo.settings.config import load_config
from stvideo.weights.configured import build_model

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
GMACS = {
    "k400_timesformer": 195.8,
    "ssv2_timesformer": 195.8,
    "k400_evit": 131.3,
    "k400_evit_any_budget": 131.3,
    "k400_stvit": 80.0,
    "ssv2_stvit": 80.0,
}


def test_there_are_configs():
    assert {path.stem for path in CONFIGS} >= {"demo", *GMACS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_opens_with_its_command(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert f"-m stvideo.train configs/{path.name}" in first


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_builds(path):
    config = load_config(path)
    check_config(config)
    with torch.device("meta"):
        model = build_model(config.model, config.data, config.model.num_classes or 10)
    clip = torch.empty(2, 3, config.data.num_frames, config.data.img_size, config.data.img_size, device="meta")
    assert model(clip).shape == (2, config.model.num_classes or 10)
    if path.stem in GMACS:
        gmacs = count_macs(model, (1, *clip.shape[1:])).total
        assert gmacs == pytest.approx(GMACS[path.stem], rel=0.015)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_flips_are_off_where_left_and_right_matter(path):
    config = load_config(path)
    if "ssv2" in path.stem or path.stem == "demo":
        assert not config.data.flip


@pytest.mark.parametrize("path", sorted((CONFIGS[0].parent / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_launcher_settings_are_what_accelerate_reads(path):
    from accelerate.commands.config.config_args import load_config_from_file

    settings = load_config_from_file(str(path))
    assert f"--config_file configs/accelerate/{path.name}" in path.read_text()
    assert settings.num_processes == {"one_gpu": 1, "8_gpus": 8, "2x8_gpus": 16, "fsdp": 8}[path.stem]


def test_the_slurm_script_is_valid_shell():
    script = CONFIGS[0].parent / "accelerate" / "slurm.sh"
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
