"""The doctor tries everything in processes of their own; a hang or a crash is one more line."""

import json
import os
import signal
import time
from multiprocessing import util
from pathlib import Path

import pytest

from stvideo import doctor
from stvideo.core.errors import StvideoError
from stvideo.data.video.decode import decord_installed
from stvideo.diagnosis import decoding, packages, system
from stvideo.diagnosis.finding import BROKEN, LESS, OK, Finding
from stvideo.preparation.jobs import Report
from tests.video_files import encode_video, numbered_frames


def test_this_machine_is_usable(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert doctor.main(["--json", "--quick"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["status"] == 0
    found = {finding["name"]: finding for finding in report["findings"]}
    assert found["torch"]["level"] == OK
    for codec in decoding.CODECS:  # the wheels of PyAV have an encoder for each
        assert found[f"{codec} by pyav"]["level"] == OK, found[f"{codec} by pyav"]
    if decord_installed():
        assert found["h264 by decord"]["text"] == "right frames in any order"
    for name in ("processor", "attention on cpu", "several processes, gloo", "output", "loader process"):
        assert found[name]["level"] in (OK, LESS), found[name]
    assert all(finding["advice"] for finding in report["findings"] if finding["level"] != OK)
    assert "torch.compile" not in found


def misbehave(probe: doctor.Probe, report: Report) -> list[Finding]:
    """Stands for a decoder that hangs, one that crashes, and a package whose import does."""
    if probe[:3] == ("decoder", "decord", "h264"):
        time.sleep(3600)
    if probe[:3] == ("decoder", "pyav", "h264") or probe == ("package", "decord"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if probe == ("package", "torch"):
        raise RuntimeError("broken")
    return [Finding("system", probe[0], OK, "fine")]


def test_a_probe_that_hangs_or_crashes_is_one_line_and_the_rest_goes_on():
    wanted = [
        *(("decoder", decoder, "h264", "x") for decoder in ("decord", "pyav")),
        *(("package", name) for name in ("decord", "torch")),
        ("folders",),
    ]
    found = {finding.name: finding for finding in doctor.gather(wanted, misbehave, timeout=5)}
    assert found["h264 by decord"].level == LESS
    assert "hangs" in found["h264 by decord"].text
    assert found["h264 by pyav"].level == BROKEN
    assert "SIGSEGV" in found["h264 by pyav"].text
    assert (found["decord"].level, found["torch"].level) == (LESS, BROKEN)
    assert found["folders"].level == OK
    assert all(finding.advice for finding in found.values() if finding.level != OK)


def clean_up_at_the_end(probe: doctor.Probe, report: Report) -> list[Finding]:
    """Stands for a probe that holds something of the system's, as torch.compile holds a semaphore."""
    util.Finalize(None, Path(probe[1]).touch, exitpriority=1)
    return []


def test_a_probe_gives_back_what_it_took_from_the_system(tmp_path):
    doctor.gather([("folders", str(tmp_path / "given back"))], clean_up_at_the_end)
    assert (tmp_path / "given back").exists()


def test_a_failing_probe_of_every_kind_has_a_line_of_its_own(tmp_path):
    failure = doctor.Failure("timeout", "no progress in 2 s")
    for probe in doctor.probes(tmp_path, quick=False):
        finding = doctor._failed(probe, failure)
        assert finding.group in doctor.HEADINGS
        assert finding.advice


def test_something_red_is_exit_status_1(monkeypatch, capsys):
    findings = [
        Finding("packages", "torch", OK, "2.15"),
        Finding("system", "shared memory", BROKEN, "64 MiB", "docker run --shm-size=8g"),
    ]
    monkeypatch.setattr(doctor, "gather", lambda probes: findings)
    assert doctor.main([]) == 1
    printed = capsys.readouterr().out
    assert "\033" not in printed  # no colours where nobody sees them
    assert "BAD   shared memory  64 MiB" in printed
    assert "-> docker run --shm-size=8g" in printed
    assert printed.endswith("not usable: shared memory\n")


def test_one_thing_is_not_several():
    warnings = [Finding("system", name, LESS, "little", "more") for name in ("memory", "room")]
    assert doctor.text(warnings[:1], color=False).endswith("usable, with 1 thing to know\n")
    assert doctor.text(warnings, color=False).endswith("usable, with 2 things to know\n")


def test_colours_on_a_terminal():
    printed = doctor.text([Finding("packages", "torch", OK, "2.15")], color=True)
    assert "\033[32mok  \033[0m" in printed
    assert printed.endswith("usable\n")


def test_a_wrong_frame_is_noticed(tmp_path):
    encode_video(tmp_path / "h264.mp4", numbered_frames(12, 64, 64))  # other pictures than the probe expects
    (finding,) = decoding.check_decoder("pyav", "h264", tmp_path)
    assert finding.level == BROKEN
    assert "instead of [7, 2, 11, 0]" in finding.text
    assert decoding.check_decoder("pyav", "vp9", tmp_path) == []


def test_a_package_that_is_missing_or_broken(monkeypatch):
    monkeypatch.setitem(packages.PACKAGES, "no-such-package", ("no_such_package", True))
    (finding,) = packages.check_package("no-such-package")
    assert (finding.level, finding.text) == (BROKEN, "not installed")
    monkeypatch.setitem(packages.PACKAGES, "numpy", ("numpy.no_such_module", True))
    (finding,) = packages.check_package("numpy")
    assert finding.level == BROKEN
    assert "cannot be imported" in finding.text


def test_folders_and_shared_memory_that_do_not_suffice(tmp_path):
    if os.path.exists("/proc/self"):  # noqa: PTH110
        finding = system.check_folder("output", system.Path("/proc/self/runs"), BROKEN, "set output=FOLDER")
        assert (finding.level, finding.advice) == (BROKEN, "set output=FOLDER")
    assert system.check_folder("output", tmp_path / "new" / "runs", BROKEN, "").level in (OK, LESS)
    assert not (tmp_path / "new").exists()
    assert [system.judge_shared_memory(size << 20).level for size in (64, 512, 4096)] == [BROKEN, LESS, OK]


def test_a_wrong_argument_is_one_line():
    with pytest.raises(StvideoError, match="takes --json and --quick only"):
        doctor.main(["something"])
    with pytest.raises(StvideoError, match="did you mean '--json'"):
        doctor.main(["--jsn"])
