"""One Slurm for all tests that ask for it; one worker runs them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import SlurmCluster, missing_programs
from tests.slurm.jobs import Launcher

_INSTALL = "apt-get install slurm-wlm slurmdbd mariadb-server munge"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what uses the fixture, before `-m` selects and xdist reads the groups."""
    if "slurm" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.slurm)
        item.add_marker(pytest.mark.xdist_group("slurm"))


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A running cluster; skips where Slurm is not installed, fails there if REQUIRE_SLURM=1."""
    if missing := missing_programs():
        reason = f"Slurm's programs are not installed: {', '.join(missing)}; {_INSTALL}"
        if os.environ.get("REQUIRE_SLURM") == "1":
            pytest.fail(f"REQUIRE_SLURM=1, but {reason}", pytrace=False)
        pytest.skip(reason)
    cluster = SlurmCluster()
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def launcher(slurm: SlurmCluster) -> Launcher:
    """`python -m launch` on the cluster."""
    return Launcher(slurm)
