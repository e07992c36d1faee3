"""Why a binding is refused: by name, for counters and logs, and with a sentence about whom."""

from __future__ import annotations


class BindRefused(Exception):
    """No binding was made and nothing has changed; `reason` is one word for counters and logs."""

    reason = "bind_refused"


class NoExternalAddress(BindRefused):
    """Nothing stands for the host outside: no address of its family, or none by its prefix."""

    reason = "no_external_address"


class NoFreePort(BindRefused):
    """Every port that would do is taken, denied, or in quarantine."""

    reason = "no_free_port"


class QuotaExceeded(BindRefused):
    """The host, or the table, has as many bindings as it may (RFC 6888 REQ-4)."""

    reason = "quota_exceeded"


class RateExceeded(QuotaExceeded):
    """The host has opened as many bindings within the last second as it may."""

    reason = "rate_exceeded"
