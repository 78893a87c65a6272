"""``python -m ddpm_pipeline.cli``: the ``ddpm`` command where it is not on the PATH."""

import sys

from ddpm_pipeline.cli.commands import main

sys.exit(main())
