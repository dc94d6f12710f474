"""`python -m seiops.controller`: the controller process."""

import sys

from seiops.controller.process import main

sys.exit(main())
