"""Whatever the OpenAPI document allows, and much that it does not, is answered as the document says."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from services.config import LimitsConfig
from tests.services.conftest import commit
from tests.services.http.running import running

EXAMPLES = 15  # of each operation and mode
# a schema cannot tell which suites, checkpoints and options there are: valid words may name what does not exist


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    commit(store, "nano-a", 10)
    with running(store, limits=LimitsConfig(evaluations=10_000)) as service:
        yield service


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_operation_answers_as_its_description_says(api, mode: GenerationMode):
    document = schemathesis.openapi.from_url(f"{api.url}/openapi.json")
    failures: dict[str, str] = {}
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) > 10
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query or operation.path_parameters):
            continue  # nothing is given that could be wrong

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers_as_described(case):
            case.call_and_validate(headers=api.headers, timeout=20, excluded_checks=[positive_data_acceptance])

        try:
            answers_as_described()
        except BaseExceptionGroup as found:
            failures[operation.label] = str([str(error) for error in found.exceptions])[:3000]
    assert failures == {}, "\n".join(f"{name}: {words}" for name, words in failures.items())
