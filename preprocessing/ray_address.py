"""Whether there is a Ray cluster at an address, found out within a stated time: Ray itself tries for over a minute.

The address is tried in two steps. A plain connection tells at once of a wrong name, a wrong port or a firewall. A Ray driver in
a process of its own then tells what only Ray can: that something else listens there, that its version is another, that this
machine is no part of the cluster. That process is ended when its time is over.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from urllib.parse import urlsplit

CONNECT_LIMIT_S = 5.0
"""For the plain connection."""
ANSWER_LIMIT_S = 20.0
"""For Ray: loading it, connecting, and leaving again takes 1 to 10 s."""
REMEDY = "start one with `ray start --head`, or leave --ray-address out for a Ray on this machine alone"
_JOIN_AND_LEAVE = """
import sys
import ray
try:
    ray.init(address=sys.argv[1], logging_level="error", log_to_driver=False)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
ray.shutdown()
"""


def require_ray(address: str, *, connect_limit_s: float = CONNECT_LIMIT_S, answer_limit_s: float = ANSWER_LIMIT_S) -> None:
    """Return if a Ray driver can join the cluster at an address; takes at most the sum of both limits.

    Args:
        address: HOST:PORT, ray://HOST:PORT, or auto (the cluster that RAY_ADDRESS names, or that runs on this machine).
        connect_limit_s: for a plain connection to the address.
        answer_limit_s: for a Ray driver to join and leave the cluster.

    Raises:
        ValueError: the address has another form.
        ConnectionError: no Ray can be joined there; the message says why and what to do.
    """
    named = os.environ.get("RAY_ADDRESS") or address if address == "auto" else address
    if named != "auto":
        _connect(named, connect_limit_s)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", _JOIN_AND_LEAVE, named], capture_output=True, text=True, timeout=answer_limit_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise ConnectionError(
            f"--ray-address {named}: what listens there did not answer as a Ray within {answer_limit_s:g} s; is it another"
            f" service, or a cluster whose token this machine lacks? If not, {REMEDY}"
        ) from error
    if ended.returncode:
        said = [line for line in ended.stderr.splitlines() if line.strip()]
        raise ConnectionError(
            f"--ray-address {named}: no Ray can be joined there ({said[-1] if said else 'no reason given'}); {REMEDY}"
        )


def _connect(address: str, limit_s: float) -> None:
    host, port = _host_and_port(address)
    try:
        socket.create_connection((host, port), timeout=limit_s).close()
    except TimeoutError as error:
        raise ConnectionError(
            f"--ray-address {address}: no answer within {limit_s:g} s; is the machine up, and its port open to this one? If"
            f" there is no Ray, {REMEDY}"
        ) from error
    except OSError as error:
        raise ConnectionError(f"--ray-address {address}: {error.strerror or error}; {REMEDY}") from error


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or parts.scheme not in ("", "ray"):
        raise ValueError(f"--ray-address {address}: expected HOST:PORT (such as 10.0.0.1:6379), ray://HOST:PORT or auto")
    return host, port
