"""Measuring in the middle of training: a video that cannot be read is left out where that is asked for."""

from tests.tiny_runs import TINY, VAL_VIDEOS, make_data, read_log, run_here


def test_training_can_leave_out_an_unreadable_validation_video(config, tmp_path, capsys):
    data = make_data(tmp_path / "videos")
    broken = tmp_path / "videos" / "val" / "up" / "2.mp4"
    broken.write_bytes(b"not a video" * 100)
    settings = [*TINY, *data, f"output={tmp_path / 'run'}", "train.max_steps=2", "evaluate.unreadable=list"]
    assert run_here("train", config, *settings) == 0
    (record,) = read_log(tmp_path / "run", "evaluation")
    assert record["videos"] == VAL_VIDEOS - 1
    captured = capsys.readouterr()
    assert f"{VAL_VIDEOS - 1} of {VAL_VIDEOS} videos" in captured.out and str(broken) in captured.err
