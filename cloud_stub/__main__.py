"""`python -m cloud_stub` is `flashgate-cloud-stub`."""

import sys

from cloud_stub.cli import main

sys.exit(main())
