"""`python -m edgemask` is `edgemask`."""

from edgemask.cli import main

main()
