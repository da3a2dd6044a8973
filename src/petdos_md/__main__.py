"""``python -m petdos_md`` runs the command ``petdos``."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
