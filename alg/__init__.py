"""The gateway: SIP in, SIP out."""
