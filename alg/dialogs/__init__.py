"""Who owns which mapping, and which answer confirms it (RFC 3261 §10, §12; RFC 3264)."""
