"""`python -m seiops.cli`, the same as the console script `seiops`."""

from seiops.cli.main import main

main()
