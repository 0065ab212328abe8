"""Several Ray nodes on one machine, each with addresses, processes and shared memory of its own: Linux namespaces.

    bridge ─┬─ veth ─ netns 1: head, and the driver
            ├─ veth ─ netns 2: a node, started again whenever it ends, as a kubelet would
            └─ veth ─ netns 3: a node

Needs root. A link can be cut and healed, a node killed and brought back. Only what was started here is ended.
"""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Self

import psutil

from envs.base import ViterError

PORT = 6379
STARTS_WITHIN_S = 120.0
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""A node that is cut off counts as dead after some 8 s instead of Ray's 65; deploy/kubernetes sets the same."""
_rigs = itertools.count()


class RigError(ViterError):
    """This machine, or this user, can have no namespaces; or a node did not start."""


class Rig:
    """A head and so many further nodes. As a context manager it takes everything down again."""

    def __init__(
        self,
        nodes: int,
        *,
        cpus: Sequence[int],
        variables: Mapping[str, str] = MappingProxyType({}),
        late: Container[int] = (),
    ) -> None:
        """Args:
        nodes: all of them, the head is the first.
        cpus: logical CPUs of each.
        variables: of every node's environment, beyond this process's and `HEALTH`.
        late: those that are not there at first; `bring` starts them.
        """
        self._tag = f"v{os.getpid() % 10000}x{next(_rigs)}"
        self._cpus, self._nodes, self._late = cpus, nodes, late
        self._folder = Path(tempfile.mkdtemp(prefix="vn", dir="/tmp"))  # short: Ray puts sockets below it
        self._environment = {
            **os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", **HEALTH, **variables,
        }  # fmt: skip
        self._shells: dict[int, subprocess.Popen[bytes]] = {}
        self.address = f"{self._ip(1)}:{PORT}"

    def __enter__(self) -> Self:
        try:
            self._network()
            for node in range(1, self._nodes + 1):
                if node not in self._late:
                    self.bring(node)
            self._wait_for_all()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def bring(self, node: int) -> None:
        """Start a node; returns once its Ray answers, for the head, and at once for others."""
        folder = self._folder / str(node)
        folder.mkdir(exist_ok=True)
        ray = Path(sys.executable).with_name("ray")
        where = f"--head --port {PORT} --include-dashboard false" if node == 1 else f"--address {self.address}"
        start = (
            f"{ray} start --block {where} --node-ip-address {self._ip(node)} --num-cpus {self._cpus[node - 1]} "
            f"--disable-usage-stats --object-store-memory {2**27} --temp-dir {folder}"
        )
        script = f"mount -t tmpfs -o size=1g tmpfs /dev/shm; while true; do {start}; sleep 1; done"
        with (folder / "log").open("ab") as log:
            self._shells[node] = subprocess.Popen(
                ["ip", "netns", "exec", self._netns(node), "unshare", "-pfm", "--mount-proc", "sh", "-c", script],
                stdout=log, stderr=log, env=self._environment, start_new_session=True,
            )  # fmt: skip
        if node == 1:
            self._wait_for_head()

    def command(self, *command: str, node: int = 1) -> list[str]:
        """The command as one to be run on a node, the head if none is named: in its namespaces."""
        return ["nsenter", "-t", str(self._init(node)), "-n", "-p", "-m", "--", *command]

    def processes(self, node: int) -> list[psutil.Process]:
        """Every process of a node."""
        return psutil.Process(self._init(node)).children(recursive=True)

    @property
    def environment(self) -> dict[str, str]:
        """Variables for commands on a node."""
        return {**self._environment, "RAY_ADDRESS": self.address}

    def kill(self, node: int) -> None:
        """End every process of a node at once, as losing its machine would."""
        os.kill(self._init(node), signal.SIGKILL)  # the first process of a PID namespace takes all others with it
        self._shells.pop(node).wait(30)

    def favour(self, node: int) -> None:
        """Let a node have most of the cores when it wants them: a start gives up where it shares them with engines."""
        with contextlib.suppress(OSError):  # a kernel that shares by process alone, and not by session
            Path(f"/proc/{self._shells[node].pid}/autogroup").write_text("-10")

    def cut(self, node: int) -> None:
        """Take a node's link down."""
        _do("ip", "link", "set", self._link(node), "down")

    def heal(self, node: int) -> None:
        """Bring a node's link back."""
        _do("ip", "link", "set", self._link(node), "up")

    def close(self) -> None:
        """Take everything down."""
        for node in list(self._shells):
            try:
                self.kill(node)
            except (OSError, psutil.Error, RigError, subprocess.SubprocessError):
                self._shells.pop(node, None)
        for node in range(1, self._nodes + 1):
            subprocess.run(["ip", "netns", "del", self._netns(node)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self._bridge], capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _network(self) -> None:
        _do("ip", "link", "add", self._bridge, "type", "bridge")
        _do("ip", "link", "set", self._bridge, "up")
        for node in range(1, self._nodes + 1):
            netns, link = self._netns(node), self._link(node)
            _do("ip", "netns", "add", netns)
            _do("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", netns)
            _do("ip", "link", "set", link, "master", self._bridge, "up")
            _do("ip", "-n", netns, "addr", "add", f"{self._ip(node)}/24", "dev", "eth0")
            _do("ip", "-n", netns, "link", "set", "eth0", "up")
            _do("ip", "-n", netns, "link", "set", "lo", "up")

    def _wait_for_head(self) -> None:
        until = time.monotonic() + STARTS_WITHIN_S
        probe = f"import socket; socket.create_connection(('{self._ip(1)}', {PORT}), 1)"
        while time.monotonic() < until:
            try:
                asked = subprocess.run(self.command(sys.executable, "-c", probe), capture_output=True, check=False)
            except RigError:
                asked = None
            if asked is not None and asked.returncode == 0:
                return
            time.sleep(0.5)
        raise RigError(f"the head did not start within {STARTS_WITHIN_S:g} s: {self._last_words(1)}")

    def _wait_for_all(self) -> None:
        count = (
            "import ray, time; ray.init(log_to_driver=False, logging_level='error')\n"
            f"while sum(node['Alive'] for node in ray.nodes()) < {len(self._shells)}: time.sleep(0.5)"
        )
        asked = self.command(sys.executable, "-c", count)
        try:
            subprocess.run(asked, env=self.environment, capture_output=True, check=True, timeout=STARTS_WITHIN_S)
        except subprocess.SubprocessError as error:
            logs = "; ".join(f"{node}: {self._last_words(node)}" for node in self._shells)
            raise RigError(
                f"not all of {len(self._shells)} nodes came within {STARTS_WITHIN_S:g} s ({error}): {logs}"
            ) from None

    def _init(self, node: int) -> int:
        """The first process of a node's PID namespace, by its id out here."""
        children = psutil.Process(self._shells[node].pid).children()
        if not children:
            raise RigError(f"node {node} is not up: {self._last_words(node)}")
        return children[0].pid

    def _last_words(self, node: int) -> str:
        return " ".join((self._folder / str(node) / "log").read_text(errors="replace").split())[-500:]

    @property
    def _bridge(self) -> str:
        return f"{self._tag}br"

    def _netns(self, node: int) -> str:
        return f"{self._tag}n{node}"

    def _link(self, node: int) -> str:
        return f"{self._tag}l{node}"

    @staticmethod
    def _ip(node: int) -> str:
        return f"10.77.0.{node}"


def why_not() -> str:
    """Why this machine can have no rig; empty where it can."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    if os.geteuid() != 0:
        return "namespaces need root"
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    return f"{', '.join(missing)} not found (iproute2, util-linux)" if missing else ""


def state_in(folder: Path) -> dict[str, str]:
    """Variables of a rig whose state lies in a folder, so that a head that is brought back goes on with it."""
    return {
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": str(folder),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "600",  # nodes wait for a head for 60 s, under KubeRay for these
    }


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RigError(f"{' '.join(command)}: {' '.join(done.stderr.split())}")
