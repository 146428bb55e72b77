"""Let ``python -m queuectl`` be the command."""

from queuectl.cli import main

main()
