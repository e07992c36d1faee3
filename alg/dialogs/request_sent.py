"""What tells one request from another, and who may answer it (RFC 3261 §17.1.3)."""

from __future__ import annotations

from typing import NamedTuple

from nat_table.endpoint import Endpoint


class RequestSent(NamedTuple):
    """What tells whose answer a response is: CSeq, topmost branch, and the address it went to."""

    cseq: int
    branch: bytes
    server: Endpoint

    def is_answered_by(self, other: RequestSent) -> bool:
        """Whether a response with these comes from the server that was asked."""
        return (self.cseq, self.branch, self.server.address) == (
            other.cseq,
            other.branch,
            other.server.address,
        )
