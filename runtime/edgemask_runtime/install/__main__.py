"""`python -m edgemask_runtime.install`: the same as `edgemask-device`, from a wheel that is not installed."""

import sys

from edgemask_runtime.install.cli import main

sys.exit(main())
