"""What every test shares: property tests that repeat exactly, and libraries told that there is no network."""

import os
import signal

from hypothesis import settings

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

# `derandomize` makes each run try the same examples; a time limit per example would make a busy machine fail.
settings.register_profile("flashgate", derandomize=True, deadline=None, database=None)
settings.load_profile("flashgate")

# A shell that starts the suite in the background makes it ignore SIGINT, and every process that a test starts and
# interrupts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
