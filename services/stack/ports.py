"""Ports of the embedded stack: chosen once a data folder, kept while nobody else takes them."""

import json
import random
import socket
from collections.abc import Collection
from pathlib import Path

from services.stack.files import write_whole
from shared.errors import Refused

NAMES = ("kafka", "controller", "registry", "redis")
LOWEST = 10_240
TRIES = 1_000


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of this machine's loopback now."""
    with socket.socket() as probe:
        # As servers do: without it the port of a server that has just ended would look taken for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def find_free(taken: Collection[int]) -> int:
    """A free port below those that the system gives to outgoing connections.

    A port from the outgoing range could be lost to any client while the broker is down, even to a client that
    tries to reach it (a connection to itself). Raises `Refused` when none is found.
    """
    highest = _first_outgoing() - 1
    for _ in range(TRIES):
        port = random.randint(LOWEST, highest)  # noqa: S311 - no secret
        if port not in taken and is_free(port):
            return port
    raise Refused(f"no free port between {LOWEST} and {highest}; stop something that listens there")


def settle(path: Path, keep: Collection[str] = ()) -> dict[str, int]:
    """The ports by name: those in the file at `path` that are free or in `keep`, new ones for the rest,
    written back.
    """
    before = known(path)
    ports: dict[str, int] = {}
    for name in NAMES:
        port = before.get(name)
        if port is None or port in ports.values() or (name not in keep and not is_free(port)):
            port = find_free([*before.values(), *ports.values()])
        ports[name] = port
    if ports != before:
        write_whole(path, json.dumps(ports))
    return ports


def known(path: Path) -> dict[str, int]:
    """What was chosen before; a damaged file counts as none, since ports can always be chosen again."""
    try:
        content = json.loads(path.read_text())
        return {name: int(content[name]) for name in NAMES if name in content}
    except (OSError, ValueError, TypeError):
        return {}


def _first_outgoing() -> int:
    """The lowest port that the system gives to outgoing connections."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        first = 32_768
    return first if first > 2 * LOWEST else 32_768
