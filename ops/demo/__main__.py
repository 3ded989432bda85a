"""`python -m ops.demo`."""

import sys

from ops.demo.cli import main

sys.exit(main())
