"""What one end of a call has sent and received, as packets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counts:
    """How many packets the phone has sent and received; `refused` came to a port that is closed."""

    rtp_sent: int = 0
    rtp_received: int = 0
    rtcp_sent: int = 0
    rtcp_received: int = 0
    refused: int = 0

    def since(self, earlier: Counts) -> Counts:
        """Returns what has come since then."""
        return Counts(
            self.rtp_sent - earlier.rtp_sent,
            self.rtp_received - earlier.rtp_received,
            self.rtcp_sent - earlier.rtcp_sent,
            self.rtcp_received - earlier.rtcp_received,
            self.refused - earlier.refused,
        )
