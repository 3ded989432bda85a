"""How far a request may travel."""

import enum


class Reach(enum.IntEnum):
    """Nearest first, so that the lower of two is the stricter. The numbers are those of `flashgate.v1.Reach`."""

    DEVICE = 1
    FLEET = 2
    CLOUD_MASKED = 3
    CLOUD = 4

    @property
    def label(self) -> str:
        """As written in policies, headers and metrics."""
        return self.name.lower()

    @classmethod
    def from_label(cls, label: str) -> "Reach":
        """Raises: ValueError naming the label and the known ones."""
        try:
            return cls[label.upper()]
        except KeyError:
            known = ", ".join(reach.label for reach in cls)
            raise ValueError(f"unknown reach {label!r}; known are {known}") from None
