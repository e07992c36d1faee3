"""SIP as bytes: spans over the original message, and edits to it (RFC 3261)."""
