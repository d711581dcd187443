"""Needs of the user: quality, speed and memory, relative to full fine-tuning."""

from __future__ import annotations

from harness.records.record import Record


class Needs(Record):
    """Limits relative to full fine-tuning."""

    min_quality: float = 0.95
    """Least share of full fine-tuning's quality."""
    min_speed: float | None = None
    """Least training speed; null sets no limit."""
    max_memory: float | None = None
    """Largest share of full fine-tuning's peak memory; null sets no limit."""

    def excess(self, speed: float, memory: float | None, tolerance: float) -> tuple[float, ...]:
        """Return how far each limit is exceeded, as a share; at most 0 where it is kept.

        Args:
            speed: speed relative to full fine-tuning.
            memory: relative memory; None if unknown, which exceeds nothing.
            tolerance: share by which a limit may be missed.
        """
        shortage = 0.0 if self.min_speed is None else self.min_speed * (1 - tolerance) / speed - 1
        surplus = 0.0
        if self.max_memory is not None and memory is not None:
            surplus = memory / (self.max_memory * (1 + tolerance)) - 1
        return shortage, surplus

    def why_too_expensive(self, speed: float, memory: float | None, tolerance: float) -> str | None:
        """Return the reason for which these costs exceed the limits; None if they do not."""
        shortage, surplus = self.excess(speed, memory, tolerance)
        reasons = []
        if shortage > 0:
            reasons.append(
                f"by its operations it trains at most {speed:.2f} times as fast as full "
                f"fine-tuning, and {self.min_speed:g} times is needed"
            )
        if surplus > 0 and memory is not None:
            reasons.append(
                f"it is planned to take {100 * memory:.0f} % of full fine-tuning's memory, and "
                f"{100 * (self.max_memory or 0):g} % is allowed"
            )
        return "; ".join(reasons) or None
