"""The NAPT table: who owns which external port, until when. Knows no SIP and no kernel."""
