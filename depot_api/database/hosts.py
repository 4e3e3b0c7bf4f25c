"""An address with several hosts, of which those that turned out to be old primaries are tried last."""

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

    def try_last(self, host: Host) -> None:
        """Nothing changes where there is no other."""
        if host not in self._hosts or len(self._hosts) == 1:
            return
        self._hosts = [*(one for one in self._hosts if one != host), host]
        names, ports = (",".join(parts) for parts in zip(*self._hosts, strict=True))
        self._conninfo = make_conninfo("", **{**self._address, "host": names, "port": ports})


def _hosts_of(address: dict[str, str | int | None]) -> list[Host]:
    """Empty where they are named by hostaddr, which this does not order."""
    if address.get("hostaddr"):
        return []
    names = str(address.get("host") or "").split(",")
    ports = str(address.get("port") or 5432).split(",")
    if len(ports) == 1:
        ports *= len(names)
    return list(zip(names, ports, strict=False))
