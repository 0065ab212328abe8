"""What a machine shows to others that it should not: Ray's dashboard, token files, switches that open vLLM."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import psutil

DASHBOARD_PORT = 8265
DASHBOARD_PROCESS = "dashboard/dashboard.py"
ANSWER_S = 2.0
OPENING_SWITCHES = ("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_INSECURE_SERIALIZATION")
"""The first adds routes that pause and reload an engine, the second lets it unpickle what it is sent."""


def dashboard_ports() -> set[int]:
    """The usual port, and those of the Rays that run here."""
    ports = {DASHBOARD_PORT}
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if any(part.endswith(DASHBOARD_PROCESS) for part in command):
            ports |= {int(part.removeprefix("--port=")) for part in command if part.removeprefix("--port=").isdigit()}
    return ports


def addresses() -> list[str]:
    """This machine's addresses that others can reach."""
    found = [(entry.family, entry.address) for entries in psutil.net_if_addrs().values() for entry in entries]
    return [
        address
        for family, address in found
        if family in (socket.AF_INET, socket.AF_INET6)
        and not address.startswith(("127.", "fe80:"))
        and address != "::1"
    ]


def open_dashboards() -> Iterator[str]:
    """Each address at which Ray's job server answers somebody who shows no token, as `host:port`."""
    for port in sorted(dashboard_ports()):
        for host in addresses():
            if takes_jobs(host, port):
                yield f"{host}:{port}"
                break


def takes_jobs(host: str, port: int) -> bool:
    """Whether Ray's job server lists its jobs there without a token: it would run one for anybody too."""
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/api/jobs/"
    try:
        answer = httpx.get(url, timeout=ANSWER_S, trust_env=False)
        return answer.status_code == 200 and isinstance(answer.json(), list)
    except (httpx.HTTPError, json.JSONDecodeError, UnicodeDecodeError):
        return False


def opened_switches(environment: Mapping[str, str]) -> list[str]:
    """The switches of `environment` that open vLLM."""
    return [name for name in OPENING_SWITCHES if environment.get(name, "0") not in ("", "0")]


def readable_secrets(store: str) -> list[Path]:
    """Token files, of the service and of Ray, that others on this machine can read."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
    files = [Path(named).expanduser()]
    if "://" not in store:
        files += [Path(store) / "service" / name for name in ("token", "tokens.json")]
    return [path for path in files if path.is_file() and path.stat().st_mode & 0o077]
