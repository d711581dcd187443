"""Bytes that this process has sent over its TCP connections."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import sys
from pathlib import Path

from harness.errors import NotMeasurableError

_BYTES_SENT = 200
"""Offset of ``tcpi_bytes_sent`` in the structure of tcp(7), since Linux 4.19."""
_LONG_ENOUGH = 512


def sent_bytes() -> int:
    """Return the bytes of data that this process has sent over the connections that it has open.

    The kernel counts them. Two readings differ by what was sent in between if no connection is
    closed meanwhile. Connections between processes of one machine count as well.

    Raises:
        NotMeasurableError: this system does not count them.
    """
    if sys.platform != "linux":
        raise NotMeasurableError("only Linux counts the bytes of a connection")
    descriptors = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    readings = [info for number in descriptors if (info := _tcp_info(number))]
    if any(len(info) < _BYTES_SENT + 8 for info in readings):
        raise NotMeasurableError("Linux counts the bytes of a connection since version 4.19")
    return sum(struct.unpack_from("Q", info, _BYTES_SENT)[0] for info in readings)


def _tcp_info(descriptor: int) -> bytes | None:
    """Return the kernel's figures of a descriptor; None if it is not a TCP connection."""
    with contextlib.suppress(OSError):  # The descriptor that listed the folder is closed by now.
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.type == socket.SOCK_STREAM:
                return copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LONG_ENOUGH)
    return None
