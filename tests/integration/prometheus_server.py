"""The real Prometheus and promtool: found, started on a port of their own, asked over the HTTP API."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx
import yaml

from tests.integration.harness import Processes, eventually

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "ops" / "prometheus" / "prometheus.yml"
_LISTENING = re.compile(r'msg="Listening on" address=(\S+)')


def binary(name: str) -> str:
    """`prometheus` or `promtool`. A missing one fails the test: what is skipped is not tested."""
    directories = [os.environ.get("FLASHGATE_PROMETHEUS_BIN"), ROOT / ".tools" / "prometheus" / "usr" / "bin"]
    for directory in directories:
        if directory and os.access(Path(directory, name), os.X_OK):
            return str(Path(directory, name))
    found = shutil.which(name)
    if found is None:
        raise AssertionError(
            f"{name} is missing: run ops/tools, install Debian's prometheus package, "
            "or set FLASHGATE_PROMETHEUS_BIN to the directory that holds it"
        )
    return found


def complaints(exposition: str) -> str:
    """What `promtool check metrics` says about an exposition; "" if all is well."""
    argv = [binary("promtool"), "check", "metrics"]
    checked = subprocess.run(argv, input=exposition, capture_output=True, text=True, check=False, timeout=30)
    return checked.stdout + checked.stderr + (f"status {checked.returncode}" if checked.returncode else "")


class Prometheus:
    """A server with the shipped configuration, pointed at the test's own addresses."""

    def __init__(self, processes: Processes, directory: Path, targets: Mapping[str, str]) -> None:
        """`targets` is each job's address."""
        config = yaml.safe_load(CONFIG.read_text())
        config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        path = directory / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        self.process = processes.start(
            [
                binary("prometheus"),
                f"--config.file={path}",
                f"--storage.tsdb.path={directory / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ]
        )
        address = eventually(lambda: _LISTENING.search(self.process.stderr()), "Prometheus' address")[1]
        self._client = httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=10)
        eventually(lambda: self._client.get("/-/ready").is_success, "Prometheus' readiness")

    def query(self, expression: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The values of an instant query by their sorted labels."""
        answer = self._client.get("/api/v1/query", params={"query": expression})
        body = answer.json()
        assert body["status"] == "success", (expression, body)
        return {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in body["data"]["result"]}

    def close(self) -> None:
        self._client.close()
