"""`python -m router.up.tether PARENT_PID COMMAND ARG…` becomes COMMAND, bound to die when its parent dies.

A killed `flashgate up` cannot stop its children itself. The kernel does it (PR_SET_PDEATHSIG), and the setting survives
exec, so it needs no code between fork and exec and none in the children. Only Linux has it; elsewhere this just becomes
COMMAND.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, *argv = sys.argv[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != int(parent):
        # It died before the setting was made, so no signal will come.
        sys.exit(1)
    os.execv(argv[0], argv)  # noqa: S606 - becoming the command is the purpose; no shell is involved


if __name__ == "__main__":
    main()
