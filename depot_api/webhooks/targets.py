"""Where a webhook may go: never into the network that only the service can reach, unless the operator says so."""

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}


class TargetRefused(Exception):
    """The address cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """An address that was looked up and may be used. A name could mean another one when asked again."""

    url: str  # with the address instead of the name
    host: str
    netloc: str


def check_url(url: str) -> str:
    """Raises ValueError for what is no http or https address with a host."""
    _split(url)
    return url


def _split(url: str) -> tuple[SplitResult, str, int]:
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("must begin with http:// or https://")
    if not parts.hostname or not url.isascii() or any(character <= " " or character == "\\" for character in url):
        raise ValueError("must name a host, in ASCII and without spaces or backslashes")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password")
    return parts, parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme]


async def resolve(url: str, allow_private: bool) -> Target:
    """Look the host up. Raises TargetRefused when any of its addresses is private, or there is none."""
    parts, host, port = _split(url)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise TargetRefused(f"{host} cannot be looked up: {error}") from error
    addresses = [str(sockaddr[0]) for *_, sockaddr in found]
    private = [address for address in addresses if not is_public(address)]
    if private and not allow_private:
        raise TargetRefused(f"{host} is at {private[0]}, which is not a public address")
    literal = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
    return Target(parts._replace(netloc=f"{literal}:{port}", fragment="").geturl(), host, parts.netloc)


def is_public(address: str) -> bool:
    """Whether anyone on the internet could reach it; an IPv4 address inside an IPv6 one counts as itself."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    return ip.is_global and not ip.is_multicast


def refuse_private_literal(url: str) -> None:
    """Raises TargetRefused when the URL itself names a private address, without looking anything up."""
    _, host, _ = _split(url)
    if host == "localhost" or host.endswith(".localhost"):
        raise TargetRefused(f"{host} is not a public address")
    try:
        public = is_public(host)
    except ValueError:
        return  # a name
    if not public:
        raise TargetRefused(f"{host} is not a public address")
