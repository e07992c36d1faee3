"""SDP as bytes: where addresses and ports stand in a session description (RFC 8866)."""
