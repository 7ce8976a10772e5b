from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """For many short runs: a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
