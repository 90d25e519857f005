"""`python -m interpreto`."""

from interpreto.cli import main

main()
