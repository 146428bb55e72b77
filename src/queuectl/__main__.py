"""Let ``python -m queuectl`` be the command."""

import sys

from queuectl.cli import main

sys.exit(main())
