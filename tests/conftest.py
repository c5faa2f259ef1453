"""Shared by all tests: every test starts from the same random state."""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

from stvideo.core.messages import show_warnings
from tests.tiny_runs import config_file, make_data

# Property tests try the same examples in every run: whether a change passes must not be a matter of luck or of how
# busy the machine is. HYPOTHESIS_PROFILE=new tries others, many more of them.
settings.register_profile(
    "same", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("new", settings.get_profile("same"), derandomize=False, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Settings that name small training and validation videos, encoded once for each module."""
    return make_data(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A configuration file of a small model."""
    return config_file(tmp_path_factory.mktemp("config"))


show_warnings()  # as the commands do

# The test processes share two cores: more threads in each would only fight.
torch.set_num_threads(1)
