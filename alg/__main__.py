"""`python -m alg` is `sipnat`."""

from alg.cli import main

main()
