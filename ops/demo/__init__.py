"""The demo model: its data, its training and its examination. `python -m ops.demo --help`."""
