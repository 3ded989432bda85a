"""How far a node's answers were the model's own."""

from dataclasses import dataclass

from edge.deviation import NOT_COUNTED, Deviation, RoutingCounts
from edge.server.pipe import Counters


@dataclass(slots=True)
class Agreement:
    """Since the server started, over all engines that it had. `deviation` None: entirely, and nothing is counted."""

    deviation: Deviation | None
    counts: RoutingCounts = NOT_COUNTED

    def add(self, added: Counters) -> None:
        """An engine's counters gained this."""
        self.counts += added.routing
