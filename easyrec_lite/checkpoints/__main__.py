"""Lists what there is to go back to: `python -m easyrec_lite.checkpoints MODEL_DIR`."""

from __future__ import annotations

import sys

from easyrec_lite._checkpoint_table import main

if __name__ == "__main__":
    sys.exit(main())
