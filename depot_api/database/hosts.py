"""An address with several hosts: the one that was the primary last is tried first, what turned out to be old last."""

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Host = tuple[str, str]


class Hosts:
    """`target_session_attrs=read-write` finds a server that takes writes, in the order of the address.

    When a former primary has come back and takes them too, that order has to change, or the right one is never asked.
    """

    def __init__(self, conninfo: str) -> None:
        self._address = conninfo_to_dict(conninfo)
        self._hosts = _hosts_of(self._address)
        self._conninfo = conninfo

    def conninfo(self) -> str:
        """The address in the order that it is tried in now."""
        return self._conninfo

    def try_first(self, host: Host) -> None:
        """It was the primary just now: one before it that is gone without a word would cost each connection seconds."""
        self._reorder([host, *(one for one in self._hosts if one != host)], host)

    def try_last(self, host: Host) -> None:
        self._reorder([*(one for one in self._hosts if one != host), host], host)

    def _reorder(self, hosts: list[Host], named: Host) -> None:
        """Nothing changes where there is no other."""
        if named not in self._hosts or len(hosts) == 1 or hosts == self._hosts:
            return
        self._hosts = hosts
        names, ports = (",".join(parts) for parts in zip(*hosts, strict=True))
        self._conninfo = make_conninfo("", **{**self._address, "host": names, "port": ports})


def _hosts_of(address: dict[str, str | int | None]) -> list[Host]:
    """Empty where they are named by hostaddr, which this does not order."""
    if address.get("hostaddr"):
        return []
    names = str(address.get("host") or "").split(",")
    ports = [port or "5432" for port in str(address.get("port") or "").split(",")]
    if len(ports) == 1:
        ports *= len(names)
    return list(zip(names, ports, strict=False))
