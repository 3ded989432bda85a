"""Source checkpoints in, packed models out: reading, converting, checking and exporting. Runs no model."""
