import socket

import pytest

from envs.base import ConfigError
from services import port
from services.port import check_free, free_ports


def test_free_ports_are_those_that_something_can_listen_on():
    found = free_ports(5)
    assert len(set(found)) == 5
    for number in found:
        check_free("127.0.0.1", number)


def test_a_taken_port_is_not_among_them_and_none_left_is_said(monkeypatch: pytest.MonkeyPatch):
    first, second = sorted(free_ports(2))
    monkeypatch.setattr(port, "UNCLAIMED", range(first, first + 1))
    assert free_ports(1) == [first]
    with socket.create_server(("", first)), pytest.raises(ConfigError, match=f"of {first} to {first} all are taken"):
        free_ports(1)
    with (
        socket.create_server(("127.0.0.1", second)),
        pytest.raises(ConfigError, match=f"port: {second} on .* is taken"),
    ):
        check_free("127.0.0.1", second)
