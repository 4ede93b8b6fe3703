"""Serves the explorer: binds to an address, prints it, warns where other machines can connect."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import sys
from collections.abc import Callable

import uvicorn

from microtome.errors import InputError
from microtome.explorer.atlas_results import AtlasResults
from microtome.explorer.live_network import LiveNetwork
from microtome.explorer.server.app import create_app
from microtome.explorer.server.request_limits import Limits
from microtome.explorer.server.thread_count import fastest_threads

__all__ = ["bound", "is_loopback", "serve"]


def serve(
    networks: list[LiveNetwork],
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str = "",
    limits: Limits | None = None,
    atlas: AtlasResults | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the explorer until it is interrupted, with the number of threads that is fastest for one picture.

    Parameters
    ----------
    networks : list of LiveNetwork
        The network, and one to compare it with.
    host : str
        The address to bind to. Any address but loopback lets other machines connect: then a token is needed. It is
        generated if none is given, and a warning is printed.
    port : int
        The port; 0 for any free one.
    token : str
        Token that every request must carry.
    ready : function
        Called with the address as soon as it can be opened.

    Raises
    ------
    InputError
        The address cannot be bound.
    """
    limits = limits or Limits()
    local = is_loopback(host)
    if not local and not token:
        token = secrets.token_urlsafe(24)
    listening = bound(host, port)
    shown = f"[{host}]" if ":" in host else host
    hosts = {"127.0.0.1", "localhost", "[::1]"} if local else {shown, *_own_names(), "127.0.0.1", "localhost"}
    application = create_app(networks, limits=limits, atlas=atlas, hosts={name.lower() for name in hosts}, token=token)
    host_name = socket.gethostname() if host in ("0.0.0.0", "::") else shown  # noqa: S104 - the user's own choice
    address = f"http://{host_name}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")
    if not local:
        sys.stderr.write(
            f"warning: bound to {host}, so other machines can start computations here. Everybody who has the complete "
            "address with its token can look at the network and its images; the connection is not encrypted.\n"
        )
    config = uvicorn.Config(
        application,
        log_level="warning",
        ws_max_size=4 * limits.body_bytes + _picture_bytes(networks),
        ws_per_message_deflate=False,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=limits.body_bytes,
        server_header=False,
    )
    server = _Server(config, ready, address)
    try:
        with fastest_threads(networks[0].net):
            server.run(sockets=[listening])
    finally:
        application.state.dispatch.computations.close()


class _Server(uvicorn.Server):
    """Reports when the server accepts connections."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[str], None] | None, address: str) -> None:
        super().__init__(config)
        self._ready, self._address = ready, address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets=sockets)
        if self._ready is not None:
            self._ready(self._address)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _own_names() -> list[str]:
    """Names and addresses under which other machines may reach this one."""
    name = socket.gethostname()
    found = [name, socket.getfqdn()]
    with contextlib.suppress(OSError):
        found += [str(entry[4][0]) for entry in socket.getaddrinfo(name, None)]
    return [f"[{one}]" if ":" in one else one for one in found]


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0 finds a free one.

    Raises
    ------
    InputError
        The address cannot be bound.
    """
    advice = "Give another --host or --port; 0 finds a free one."
    if not 0 <= port <= 65535:
        raise InputError(f"a port is a number from 0 to 65535, got {port}. {advice}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InputError(f"{host} is not an address of this machine: {error.strerror or error}. {advice}") from error
    opened = socket.socket(family, kind, protocol)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        opened.close()
        raise InputError(f"{host}:{port} cannot be bound: {error.strerror or error}. {advice}") from error
    return opened


def _picture_bytes(networks: list[LiveNetwork]) -> int:
    channels, height, width = networks[0].net.input_shape
    return channels * height * width
