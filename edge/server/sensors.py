"""What the machine says about itself: memory of a process, temperature, battery. Linux's /proc and /sys."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Readings:
    """What one look at the machine says."""

    memory_bytes: int
    temperature_celsius: float | None
    power: "Power"


@dataclass(frozen=True, slots=True)
class Power:
    """None where the machine has no battery, or does not say."""

    battery_fraction: float | None = None
    on_battery: bool | None = None


def readings(engine_pid: int | None, root: Path = Path("/")) -> Readings:
    """`engine_pid`: whose memory counts beside our own; None if there is no engine at the moment."""
    memory_bytes = resident_bytes(root)
    if engine_pid is not None:
        memory_bytes += resident_bytes(root, str(engine_pid))
    return Readings(memory_bytes, temperature_celsius(root), power(root))


def temperature_celsius(root: Path = Path("/")) -> float | None:
    """The hottest thermal zone; None without a readable one."""
    zones = (root / "sys/class/thermal").glob("thermal_zone*/temp")
    readings = [value / 1000 for zone in zones if (value := _read_int(zone)) is not None]
    return max(readings, default=None)


def power(root: Path = Path("/")) -> Power:
    """The first battery of the machine itself; those of mice and the like say scope "Device"."""
    for supply in sorted((root / "sys/class/power_supply").glob("*")):
        if _read(supply / "type") == "Battery" and _read(supply / "scope") != "Device":
            percent = _read_int(supply / "capacity")
            status = _read(supply / "status")
            return Power(
                None if percent is None else percent / 100, None if status is None else status == "Discharging"
            )
    return Power()


def resident_bytes(root: Path = Path("/"), process: str = "self") -> int:
    """Memory that a process holds now; 0 if it cannot be read."""
    for line in (_read(root / "proc" / process / "status") or "").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return None


def _read_int(path: Path) -> int | None:
    text = _read(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
