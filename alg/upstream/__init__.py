"""The NAT above this router, if there is one: what it is, and what it opens for us."""
