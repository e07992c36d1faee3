"""A small network with phones and a SIP server, for tests and for `./dev demo`.

Nothing here shares code with the gateway's parsers, so an error there cannot hide itself here.
"""
