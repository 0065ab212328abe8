"""What the smaller routes take and give, and the limits of what may be asked. Plain values; knows no HTTP."""

from typing import Any

from pydantic import BaseModel

from envs import names as environment_names
from envs import suites

SUITE_SHOWN_N = 1000


class SuiteCard(BaseModel):
    """A suite by name, with the digest of its first thousand tasks."""

    name: str
    kind: str
    environment: str
    options: dict[str, Any]
    n: int
    digest: str
    is_default: bool


class SuiteList(BaseModel):
    """Every suite of every environment."""

    object: str = "list"
    data: list[SuiteCard]


class Health(BaseModel):
    """How the service is."""

    status: str
    checkpoints: int | None = None


def suite_cards() -> list[SuiteCard]:
    """Every suite of every installed environment."""
    return [
        SuiteCard(
            name=name,
            kind=suite.kind,
            environment=environment,
            options=dict(suite.options),
            n=len(suite.tasks),
            digest=suite.digest,
            is_default=name in suites.default_suites(environment, suites.modality_of(suite.options)),
        )
        for environment in environment_names()
        for name in suites.suite_names(environment)
        for suite in [suites.load(name, SUITE_SHOWN_N)]
    ]
