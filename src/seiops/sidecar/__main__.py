"""`python -m seiops.sidecar` is `seictl`."""

import sys

from seiops.sidecar.entry import main

sys.exit(main())
