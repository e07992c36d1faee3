"""A free port is one that no socket has, nor the one behind it where two are needed."""

from __future__ import annotations

import secrets
import socket

import pytest

from alg.io.free_port import HIGHEST, LOWEST, free_port

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
LOOPBACK = "127.0.0.1"


def test_a_row_with_a_socket_in_it_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter((0, 0, 1, 2))
    monkeypatch.setattr(secrets, "randbelow", lambda count: next(drawn))
    with socket.socket(socket.AF_INET, UDP) as udp:
        udp.bind((LOOPBACK, LOWEST + 1))
        assert free_port(LOOPBACK, UDP, is_even=True) == LOWEST
        taken = {LOWEST + 2}
        assert free_port(LOOPBACK, UDP, is_even=True, count=2, taken=taken) == LOWEST + 4


@pytest.mark.parametrize("is_even", [True, False])
@pytest.mark.parametrize("host", [LOOPBACK, "203.0.113.77", "2001:db8::77"])
def test_ports_are_dynamic_ones_of_the_parity_asked_for(host: str, is_even: bool) -> None:
    port = free_port(host, TCP, is_even=is_even)
    assert port is not None
    assert LOWEST <= port < HIGHEST
    assert port % 2 == (0 if is_even else 1)


def test_where_all_are_taken_there_is_none() -> None:
    assert free_port(LOOPBACK, UDP, is_even=True, taken=range(65536)) is None
