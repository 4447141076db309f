"""``python -m sanet`` and ``torchrun -m sanet`` are the command line."""

import sys

from sanet.cli.main import main

sys.exit(main())
