"""Settings of every test, and how `--dist loadscope` shares the slow ones among processes."""

from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile("viter", deadline=None)  # speed is never a pass mark: the machine may be busy
hypothesis.settings.load_profile("viter")

BESIDE = (
    "tests/trainers/",
    "tests/cluster/test_engine",
    "tests/cluster/test_openai",
    "tests/cluster/test_launch",
    "tests/services/page/",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process takes what starts services and clusters of several nodes, so that one of them at a time has the machine; beside
    it the other takes learners, engines, the page, and runs on a Ray of their own."""
    from xdist.scheduler import LoadScopeScheduling

    class OneCluster(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.partition("::")[0] if nodeid.startswith(BESIDE) else "clusters"

    return OneCluster(config, log) if config.getvalue("dist") == "loadscope" else None
