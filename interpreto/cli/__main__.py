"""`python -m interpreto.cli`."""

from interpreto.cli import main

main()
