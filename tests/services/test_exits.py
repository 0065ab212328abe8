"""How a command ends that is told to, while it waits for Ray."""

import os
import signal
import subprocess
import sys
import time

import pytest

COMMAND = """
import ray, typer
from cluster import interrupts
from services.exits import plain_errors

def main():
    with plain_errors():
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
        interrupts.listen()
        print("waits", flush=True)
        ray.get(ray.remote(lambda: __import__("time").sleep(600)).remote())

typer.run(main)
"""
INTO_THE_WAIT_S = 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_an_interrupt_that_finds_ray_waiting_ends_with_the_code_of_its_signal(number: signal.Signals, code: int):
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "waits"
        time.sleep(INTO_THE_WAIT_S)
        process.send_signal(number)
        _, told = process.communicate(timeout=120)
    assert process.returncode == code, told
    assert told.splitlines()[-1].startswith("viter: interrupted")
