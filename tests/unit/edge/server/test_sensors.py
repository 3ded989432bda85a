from pathlib import Path

from edge.server import sensors


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_machine_without_sensors_says_nothing(tmp_path: Path) -> None:
    assert sensors.temperature_celsius(tmp_path) is None
    assert sensors.power(tmp_path) == sensors.Power()
    assert sensors.resident_bytes(tmp_path) == 0


def test_sensors_that_talk_nonsense_say_nothing(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/thermal/thermal_zone0/temp", "hot\n")
    write(tmp_path, "sys/class/power_supply/BAT0/type", "Battery\n")
    write(tmp_path, "sys/class/power_supply/BAT0/capacity", "\n")
    assert sensors.temperature_celsius(tmp_path) is None
    assert sensors.power(tmp_path) == sensors.Power()


def test_the_hottest_zone_counts(tmp_path: Path) -> None:
    for zone, millidegrees in enumerate(("41500", "-5000", "38000")):
        write(tmp_path, f"sys/class/thermal/thermal_zone{zone}/temp", f"{millidegrees}\n")
    assert sensors.temperature_celsius(tmp_path) == 41.5


def test_the_machines_own_battery_is_read(tmp_path: Path) -> None:
    write(tmp_path, "sys/class/power_supply/AC/type", "Mains")
    write(tmp_path, "sys/class/power_supply/mouse/type", "Battery")
    write(tmp_path, "sys/class/power_supply/mouse/scope", "Device")
    write(tmp_path, "sys/class/power_supply/BAT1/type", "Battery")
    write(tmp_path, "sys/class/power_supply/BAT1/capacity", "80\n")
    write(tmp_path, "sys/class/power_supply/BAT1/status", "Discharging\n")
    assert sensors.power(tmp_path) == sensors.Power(0.8, on_battery=True)
    write(tmp_path, "sys/class/power_supply/BAT1/status", "Charging\n")
    assert sensors.power(tmp_path) == sensors.Power(0.8, on_battery=False)


def test_memory_is_that_of_the_process(tmp_path: Path) -> None:
    write(tmp_path, "proc/7/status", "Name:\tx\nVmRSS:\t  2048 kB\nThreads:\t1\n")
    assert sensors.resident_bytes(tmp_path, "7") == 2048 * 1024
    assert sensors.resident_bytes() > 1_000_000
