"""The doctor tries everything in a process of its own; a hang or a crash is one more line."""

import json
import os
import signal
import time

import pytest

from stvideo import doctor
from stvideo.core.errors import StvideoError
from stvideo.diagnosis import checks
from tests.video_files import encode_video, numbered_frames


def test_this_machine_is_usable(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert doctor.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["status"] == 0
    found = {finding["name"]: finding for finding in report["findings"]}
    assert {"python", "torch", "attention", "output", "shared memory"} <= set(found)
    for codec in checks.CODECS:  # the wheels of PyAV have an encoder for each
        assert found[f"{codec} by pyav"]["level"] == "ok", found[f"{codec} by pyav"]
    if found["decord"]["level"] == "ok":
        assert found["h264 by decord"]["text"] == "right frames in any order"
    assert all(finding["advice"] for finding in report["findings"] if finding["level"] != "ok")


def hang():
    time.sleep(3600)


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def fail():
    raise RuntimeError("broken\nin two lines")


def work():
    return "fine"


def test_a_check_that_hangs_or_crashes_is_one_line_and_the_rest_goes_on():
    wanted = [
        doctor.Check("hanging", hang, (), False, "wait"),
        doctor.Check("crashing", crash, (), True, "reinstall"),
        doctor.Check("failing", fail, (), False, "mend"),
        doctor.Check("working", work, (), True, "nothing"),
    ]
    findings = doctor.carry_out(wanted, timeout=5)
    assert [(one["level"], one["text"]) for one in findings] == [
        ("less", "hangs"),
        ("BAD", "crashes (SIGSEGV)"),
        ("less", "broken in two lines"),
        ("ok", "fine"),
    ]
    shown = doctor.in_lines(findings)
    assert "-> reinstall" in shown
    assert "-> nothing" not in shown
    assert shown.endswith("not usable: crashing")
    assert doctor.in_lines(findings[3:]).endswith("usable")


def test_something_bad_is_exit_status_1(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "all_checks", lambda folder: [doctor.Check("failing", fail, (), True, "mend")])
    assert doctor.main([]) == 1
    assert "BAD   failing" in capsys.readouterr().out


def test_a_wrong_frame_is_noticed(tmp_path):
    encode_video(tmp_path / "h264.mp4", numbered_frames(12, 64, 64))  # other pictures than the check expects
    with pytest.raises(RuntimeError, match=r"instead of \[7, 2, 11, 0\]"):
        checks.check_decoder("pyav", "h264", str(tmp_path))


def test_a_package_that_is_missing_broken_or_too_old(monkeypatch, tmp_path):
    with pytest.raises(RuntimeError, match="not installed"):
        checks.check_package("no-such-package>=1")
    with pytest.raises(RuntimeError, match="which is not >=99"):
        checks.check_package("numpy>=99")
    (tmp_path / "broken_package.py").write_text("raise ImportError('no such symbol')")
    (tmp_path / "broken_package-1.0.dist-info").mkdir()
    (tmp_path / "broken_package-1.0.dist-info" / "METADATA").write_text("Name: broken_package\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="no such symbol"):
        checks.check_package("broken_package")


def test_what_the_package_requires_is_looked_for():
    listed = {name: needed for name, _, needed in checks.requirements()}
    assert listed["torch"] and listed["av"]
    assert not listed["tensorboard"] and not listed["onnx"]
    assert "pytest" not in listed


def test_folders_that_cannot_be_written_to(tmp_path):
    if os.path.exists("/proc/self"):  # noqa: PTH110
        with pytest.raises(OSError):
            checks.check_folder("/proc/self/runs")
    assert "GiB free" in checks.check_folder(str(tmp_path / "new" / "runs"))
    assert not (tmp_path / "new").exists()


def test_a_wrong_argument_is_one_line():
    with pytest.raises(StvideoError, match="takes --json only"):
        doctor.main(["something"])
    with pytest.raises(StvideoError, match="did you mean '--json'"):
        doctor.main(["--jsn"])
