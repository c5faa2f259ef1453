"""Shared by all tests: every test starts from the same random state."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


# The test processes share two cores: more threads in each would only fight.
torch.set_num_threads(1)
