"""A run on two machines, each a network namespace with an address of its own; and what configs/accelerate says."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from tests.tiny_runs import REPOSITORY, TINY, config_file, environment, free_port, make_data, read_log, run_here

FILES = REPOSITORY / "configs" / "accelerate"
NAMES = (f"stvideo-{os.getpid()}-a", f"stvideo-{os.getpid()}-b")
ADDRESSES = ("10.201.17.1", "10.201.17.2")


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


@pytest.fixture
def hosts():
    """Prefixes of commands that run them on the first and on the second machine, and the environment there."""
    steps = [["netns", "add", name] for name in NAMES]
    steps += [
        ["link", "add", "stvideo0", "netns", NAMES[0], "type", "veth", "peer", "name", "stvideo0", "netns", NAMES[1]]
    ]
    for name, address in zip(NAMES, ADDRESSES, strict=True):
        inside = ["-n", name]
        steps += [[*inside, "addr", "add", f"{address}/24", "dev", "stvideo0"]]
        steps += [[*inside, "link", "set", device, "up"] for device in ("lo", "stvideo0")]
    try:
        allowed = os.geteuid() == 0 and all(ip(*step).returncode == 0 for step in steps)
    except FileNotFoundError:
        allowed = False
    if allowed:
        yield [["ip", "netns", "exec", name] for name in NAMES], ADDRESSES[0], {"GLOO_SOCKET_IFNAME": "stvideo0"}
    else:  # no namespaces here: both machines are this one
        yield [[], []], "127.0.0.1", {}
    for name in NAMES:
        if allowed:
            ip("netns", "delete", name)


LAUNCHERS = {
    "accelerate": ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "2", "--num_processes", "2"],
    "torchrun": ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"],
}


@pytest.mark.parametrize("launcher", ["torchrun", pytest.param("accelerate", marks=pytest.mark.slow)])
def test_two_machines_train_one_model(hosts, launcher, tmp_path):
    prefixes, address, settings = hosts
    data = make_data(tmp_path / "videos")
    same = [config_file(tmp_path), *TINY, *data, "model.drop_path_rate=0", "train.max_steps=2", "train.optimizer=sgd"]
    port = free_port()
    processes = []
    for rank, prefix in enumerate(prefixes):
        where = {
            "accelerate": ["--machine_rank", str(rank), "--main_process_ip", address, "--main_process_port", port],
            "torchrun": ["--node_rank", str(rank), "--master_addr", address, "--master_port", port],
        }[launcher]
        started = [*prefix, sys.executable, *LAUNCHERS[launcher], *where, "-m", "stvideo.train", *same]
        processes.append(
            subprocess.Popen(
                [*started, f"output={tmp_path / 'two'}", "data.batch_size=2"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=REPOSITORY,
                env=environment() | settings,
            )
        )
    printed = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert run_here("train", *same, f"output={tmp_path / 'one'}") == 0
    losses = [[record["loss"] for record in read_log(tmp_path / name, "train")] for name in ("two", "one")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


# ---- ready files ----


@pytest.mark.parametrize(
    ("name", "processes", "machines"),
    [("one_gpu", 1, 1), ("8_gpus", 8, 1), ("2x8_gpus", 16, 2), ("fsdp", 8, 1)],
)
def test_the_launcher_understands_every_file(name, processes, machines):
    """Read as `accelerate launch` reads it; an unknown key is an error there, a forgotten one a question."""
    path = FILES / f"{name}.yaml"
    settings = load_config_from_file(str(path))
    assert (settings.num_processes, settings.num_machines) == (processes, machines)
    arguments = launch_command_parser().parse_args(["--config_file", str(path), "-m", "stvideo.train"])
    try:
        arguments = _validate_launch_command(arguments)[0]
    except ValueError as error:
        assert name != "one_gpu", error  # a machine without GPUs may refuse to start eight processes, nothing else
        raise
    assert isinstance(arguments, Namespace)
    assert arguments.num_processes == processes
    assert arguments.use_fsdp == (name == "fsdp")
    if name == "fsdp":
        assert arguments.fsdp_version == 2
    command = next(line for line in path.read_text().splitlines() if "accelerate launch" in line)
    assert f"configs/accelerate/{name}.yaml" in command


def test_the_batch_script_is_bash_and_its_launcher_has_its_options():
    script = FILES / "slurm.sh"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    told = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--help"], capture_output=True, text=True, env=environment()
    ).stdout
    options = [word for line in script.read_text().splitlines() if not line.startswith("#") for word in line.split()]
    for option in (word for word in options if word.startswith("--")):
        assert option in told.replace("-", "_") or option.replace("_", "-") in told or option == "--"


def test_all_files_are_covered():
    assert {path.stem for path in Path(FILES).glob("*.yaml")} == {"one_gpu", "8_gpus", "2x8_gpus", "fsdp"}
    assert all(isinstance(yaml.safe_load(path.read_text()), dict) for path in FILES.glob("*.yaml"))
