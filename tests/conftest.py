"""Settings of every test, and how `--dist loadscope` shares the slow ones among processes."""

from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile("viter", deadline=None)  # speed is never a pass mark: the machine may be busy
hypothesis.settings.load_profile("viter")

WITHOUT_CLUSTERS = ("tests/trainers/", "tests/cluster/test_engine", "tests/cluster/test_openai", "tests/services/page/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process takes all that starts Ray, so that one cluster at a time has the machine; beside it the other takes the files
    that start none: learners, engines, the page."""
    from xdist.scheduler import LoadScopeScheduling

    class OneCluster(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.partition("::")[0] if nodeid.startswith(WITHOUT_CLUSTERS) else "clusters"

    return OneCluster(config, log) if config.getvalue("dist") == "loadscope" else None
