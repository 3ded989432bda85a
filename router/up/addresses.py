"""The six ports, and a clear word about those that somebody else has."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

from router.errors import ConfigError

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where each server listens on this machine; 0 is any free port."""

    grpc: int = 50050
    http: int = 8080
    edge: int = 50051
    edge_metrics: int = 9101
    cloud: int = 50052
    cloud_metrics: int = 9102

    def __post_init__(self) -> None:
        """Raises ConfigError naming the option, its value and its range."""
        for option, port in self.by_option().items():
            if not 0 <= port <= 65535:
                raise ConfigError(f"{option} is {port}: give a port from 0 to 65535")

    def by_option(self) -> dict[str, int]:
        """Each port by the option that sets it."""
        return {
            "--grpc-port": self.grpc,
            "--http-port": self.http,
            "--edge-port": self.edge,
            "--edge-metrics-port": self.edge_metrics,
            "--cloud-port": self.cloud,
            "--cloud-metrics-port": self.cloud_metrics,
        }

    def with_ready(self, **addresses: str) -> "Ports":
        """The ports that ready lines name, so that a restarted child comes back where it was."""
        found: Mapping[str, int] = {name: int(address.rpartition(":")[2]) for name, address in addresses.items()}
        return replace(self, **found)


def check_free(ports: Ports) -> None:
    """Raises ConfigError naming every port that is given twice or in use, with the remedy."""
    taken = [f"{option} {port}" for option, port in ports.by_option().items() if port and not _is_free(port)]
    if taken:
        raise ConfigError(
            f"already in use on {HOST}: {', '.join(taken)}. `ss -ltnp` names the process that has a port; "
            "stop it, or choose other ports with these options (0 is any free one)"
        )
    given = [port for port in ports.by_option().values() if port]
    twice = {port for port in given if given.count(port) > 1}
    if twice:
        options = [f"{option} {port}" for option, port in ports.by_option().items() if port in twice]
        raise ConfigError(f"the same port is given twice: {', '.join(options)}")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
