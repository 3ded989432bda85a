"""Writes the chats that the demo model is calibrated with: of the side that training may see, never of the examination.

python -m ops.demo.calibration_set ops/demo/calibration.jsonl
flashgate-edge convert CHECKPOINT PACK --bits 3 --calibration ops/demo/calibration.jsonl
"""

import argparse
import json
from itertools import islice
from pathlib import Path

from ops.demo.tasks import mixture
from ops.demo.tasks.draw import Side

SEED = "calibration"
NUM_CHATS = 450


def lines() -> list[str]:
    """One chat each, answers included, tasks in the shares that training draws them in."""
    chats = islice(mixture(SEED, Side.TRAIN), NUM_CHATS)
    return [json.dumps({"messages": chat.messages(len(chat.turns))}, ensure_ascii=False) for chat in chats]


def main() -> None:
    """Write the file that is named."""
    parser = argparse.ArgumentParser("python -m ops.demo.calibration_set", description="Write the calibration set.")
    parser.add_argument("out", metavar="OUT.jsonl", type=Path)
    parser.parse_args().out.write_text("\n".join(lines()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
