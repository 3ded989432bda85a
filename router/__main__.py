"""`python -m router` is `flashgate`."""

import sys

from router.cli import main

sys.exit(main())
