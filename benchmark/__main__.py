# PYTHON_ARGCOMPLETE_OK
"""``python -m benchmark``."""

import sys

from benchmark.commands.cli import main
from benchmark.system.credentials import tell_uncaught
from benchmark.system.signals import ended_as_by_ctrl_c

if __name__ == "__main__":
    sys.excepthook = tell_uncaught
    with ended_as_by_ctrl_c():  # from the first second on
        sys.exit(main())
