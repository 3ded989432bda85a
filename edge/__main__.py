"""`python -m edge` is `flashgate-edge`."""

import sys

from edge.cli import main

sys.exit(main())
