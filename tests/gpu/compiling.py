"""Compiles the steps of estimators on the device, for its own sake: the next process finds the kernels in the cache.

python -m tests.gpu.compiling ID...
"""

import sys

from tests.contracts.cases import kinds, small
from tests.gpu.device import capturing, here

if __name__ == "__main__":
    for kind in kinds():
        if kind.id in sys.argv[1:]:
            for captured in (True, False):  # the programs differ in how their arguments lie
                with capturing(captured):
                    here(small(kind), compiled=True)
