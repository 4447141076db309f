"""The visits that are open: each visitor's own, not too many, and none for longer than was promised."""

from __future__ import annotations

from threading import Lock
from time import monotonic

from sanet.demo.visit import Visit

GRACE = 20.0  # seconds between a page that is gone and its visit


class Visits:
    """Visits by the key of their visitor's page.

    Args:
        largest: visits that are kept at a time; one more takes the place of the oldest.
        seconds: that one is kept after its last step.
    """

    def __init__(self, largest: int, seconds: float) -> None:
        self.largest = largest
        self.seconds = seconds
        self._lock = Lock()
        # The one whose last step is longest ago comes first.
        self._visits: dict[str, tuple[float, Visit]] = {}

    def __len__(self) -> int:
        return len(self._visits)

    def put(self, key: str, visit: Visit) -> None:
        """Open a visit, in place of the visitor's last one."""
        with self._lock:
            self._visits.pop(key, None)
            self._visits[key] = (monotonic(), visit)
            while len(self._visits) > self.largest:
                del self._visits[next(iter(self._visits))]

    def get(self, key: str) -> Visit | None:
        """The visitor's visit, kept for longer now; None if there is none any more."""
        with self._lock:
            found = self._visits.pop(key, None)
            if found is None or monotonic() - found[0] > self.seconds:
                return None
            self._visits[key] = (monotonic(), found[1])
            return found[1]

    def close(self, key: str) -> None:
        """Forget a visitor."""
        with self._lock:
            self._visits.pop(key, None)

    def leave(self, key: str) -> None:
        """Forget a visitor soon: whose phone only changed its network comes back."""
        with self._lock:
            if key in self._visits:
                last, visit = self._visits[key]
                self._visits[key] = (min(last, monotonic() - self.seconds + GRACE), visit)

    def keys(self) -> set[str]:
        """Those of the visitors."""
        with self._lock:
            return set(self._visits)

    def purge(self) -> None:
        """Forget those whose time is over."""
        with self._lock:
            now = monotonic()
            self._visits = {key: entry for key, entry in self._visits.items() if now - entry[0] <= self.seconds}
