"""Fixtures that more than one room's tests need."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Read when ray is imported: without it, a local Ray writes a token into the home folder.
os.environ["RAY_AUTH_MODE"] = "disabled"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One small Ray on this machine for the whole session: starting a second one beside it confuses both."""
    import ray

    # Without "local", Ray joins whatever cluster it finds on this machine.
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=96 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    yield
    ray.shutdown()
