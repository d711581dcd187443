"""The bytes that a process has sent over its connections."""

from __future__ import annotations

import socket
import sys

import pytest

from harness.measurement.network import sent_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts them")
def test_the_bytes_of_open_connections_are_counted() -> None:
    server = socket.create_server(("localhost", 0))
    with server, socket.create_connection(server.getsockname()) as client:
        peer, _ = server.accept()
        with peer:
            before = sent_bytes()
            client.sendall(b"x" * 5000)
            assert len(peer.recv(5000, socket.MSG_WAITALL)) == 5000
            assert sent_bytes() - before == 5000
            peer.sendall(b"y" * 70)
            client.recv(70, socket.MSG_WAITALL)
            assert sent_bytes() - before == 5070
