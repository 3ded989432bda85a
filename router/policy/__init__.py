"""Routing policies: YAML with CEL conditions, checked when loaded, evaluated as a pure function, reloaded live."""
