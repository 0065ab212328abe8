"""What a Ray job came to, as an exit code."""

import json
from typing import Any

CLUSTER_ERRORS = ("RUNTIME_ENV_SETUP_FAILURE", "JOB_SUPERVISOR_ACTOR")  # ours to try again, not the run's fault
RETRY_EXIT = 75


def outcome(info: Any, log: str) -> int:
    """The exit code of a job that has ended.

    Ray's own status collapses every failure to 1 and calls a stopped job a success, so the driver's last JSON line
    counts first, then the exit code Ray noted.
    """
    status = info.status.value
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":  # before it said anything, perhaps: submitted again it goes on
        return RETRY_EXIT if (said := last_word(log)) is None else said
    if str(info.error_type or "").removeprefix("JobErrorType.").startswith(CLUSTER_ERRORS):
        return RETRY_EXIT
    return last_word(log) or info.driver_exit_code or 1


def last_word(log: str) -> int | None:
    for line in reversed(log.splitlines()[-20:]):
        try:
            code = json.loads(line).get("viter_exit")
        except (ValueError, AttributeError):
            continue
        if isinstance(code, int):
            return code
    return None
