# PYTHON_ARGCOMPLETE_OK
"""``python -m benchmark``."""

import sys

from benchmark.commands.cli import main
from benchmark.system.credentials import tell_uncaught

if __name__ == "__main__":
    sys.excepthook = tell_uncaught
    sys.exit(main())
