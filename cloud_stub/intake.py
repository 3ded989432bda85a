"""What every request passes before anything else: the record, if one is kept."""

import asyncio
import datetime
from collections.abc import Mapping

from cloud_stub.metrics import Metrics
from cloud_stub.record import Record


class Intake:
    """Records requests as they were received, before they are checked or answered."""

    def __init__(self, record: Record | None, metrics: Metrics) -> None:
        self._record = record
        self._metrics = metrics

    async def received(self, entry: Mapping[str, object]) -> None:
        """Return once `entry` is on the disk. Raises RecordError: the request must then fail.

        A caller that leaves meanwhile changes nothing: it was received, so it is recorded.
        """
        if self._record is None:
            return
        line = {"received_at": datetime.datetime.now(datetime.UTC).isoformat(), **entry}
        await asyncio.shield(asyncio.to_thread(self._record.append, line))
        self._metrics.recorded()
