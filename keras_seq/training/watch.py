"""Ends a process that waits for workers which never start; run as a process of its own, of Python alone.

TensorFlow waits for the others for an hour in one call, in which no thread of Python runs and SIGTERM is not heard.
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys


def absent(addresses: dict[str, str]) -> dict[str, str]:
    """Of workers and their addresses those whose port is not open."""
    found = dict(addresses)
    for worker, address in addresses.items():
        with contextlib.suppress(OSError), socket.create_connection(host_and_port(address), timeout=1):
            del found[worker]
    return found


def host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def named(addresses: dict[str, str]) -> str:
    return ", ".join(f"{worker} at {address}" for worker, address in addresses.items())


def main() -> None:
    """Unless the standard input ends in time, say who is missing and end the process with this number."""
    process, timeout, addresses = int(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3])
    if select.select([sys.stdin], [], [], timeout)[0]:
        return
    missing = named(absent(addresses)) or "which: all ports are open"
    print(
        f"TimeoutError: TF_CONFIG: expected all workers to start within {timeout:g} seconds of having met, did not find "
        f"{missing}; this process, which waits for it in TensorFlow, is killed",
        file=sys.stderr,
        flush=True,
    )
    os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
