"""Distillation, label smoothing and the moving average, against their formulas."""

import copy
import math

import pytest
import torch
from torch import nn

import stvideo
from stvideo.core.errors import StvideoError
from stvideo.data.clips.preprocessing import Preprocessing
from stvideo.settings.config import Config
from stvideo.training.ema import WeightAverage
from stvideo.training.losses import TrainingLoss, check_teacher

STUDENT = nn.Identity()  # without reductions


class Teacher(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, clip):
        return self.logits


def test_distillation_is_the_divergence_from_the_softened_teacher():
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    label = torch.tensor([0, 2, 1, 1])
    loss, _ = TrainingLoss(STUDENT, teacher=Teacher(teacher), weight=0.7, temperature=2.0)(
        student, label, torch.zeros(1)
    )
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = 0.0
    for i in range(4):
        expected -= math.log(student[i].softmax(0)[label[i]]) / 4
        expected += 0.7 * 4 * sum(float(p[i, k] * (p[i, k] / q[i, k]).log()) for k in range(3)) / 4
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_student_that_equals_its_teacher_pays_nothing_and_the_teacher_gets_no_gradient():
    logits = torch.randn(4, 3, requires_grad=True)
    teacher = Teacher(logits.detach().clone())
    plain, _ = TrainingLoss(STUDENT)(logits, torch.zeros(4, dtype=torch.long), torch.zeros(1))
    distilled, _ = TrainingLoss(STUDENT, teacher=teacher)(logits, torch.zeros(4, dtype=torch.long), torch.zeros(1))
    assert float(distilled.detach()) == pytest.approx(float(plain.detach()), abs=1e-6)
    distilled.backward()
    assert teacher.logits.grad is None


def test_label_smoothing_equals_soft_labels():
    logits, label = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    soft = 0.8 * nn.functional.one_hot(label, 4).float() + 0.2 / 4
    smoothed, _ = TrainingLoss(STUDENT, label_smoothing=0.2)(logits, label, torch.zeros(1))
    torch.testing.assert_close(smoothed, TrainingLoss(STUDENT)(logits, soft, torch.zeros(1))[0])


def test_a_teacher_with_other_preprocessing_or_classes_is_refused():
    config = Config()
    config.train.teacher = "runs/teacher"
    teacher = stvideo.create_model("timesformer_tiny_patch16_224", num_classes=2)
    teacher.classes = ["a", "b"]
    check_teacher(teacher, config, ["a", "b"])
    teacher.preprocessing = Preprocessing.from_dict({"num_frames": 8, "stride": 3, "test_short_side": 256})
    check_teacher(teacher, config, ["a", "b"])
    with pytest.raises(StvideoError, match="classes"):
        check_teacher(teacher, config, ["b", "a"])
    teacher.preprocessing = Preprocessing.from_dict({"num_frames": 16})
    with pytest.raises(StvideoError, match=r"data\.num_frames=16, this run has 8"):
        check_teacher(teacher, config, ["a", "b"])


def test_moving_average_follows_its_formula():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = WeightAverage(model, decay=0.9)
    expected = copy.deepcopy(model.state_dict())
    for step in range(200):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(4, 3))
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach()
    for name, _ in model.named_parameters():
        torch.testing.assert_close(average.model.state_dict()[name], expected[name])
    torch.testing.assert_close(average.model[1].running_mean, model[1].running_mean)
    assert not average.model.training
