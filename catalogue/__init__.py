"""A table of rows becomes a folder of pictures, by many ComfyUIs, on Ray: `python -m catalogue`, see docs/catalogue.md.

The nodes never import this.
"""

import sys
from pathlib import Path

# The client that compose.py uses too. Where Ray has brought this folder to another machine, it has brought the client as well.
API = Path(__file__).resolve().parents[1] / "workflows" / "api"
sys.path.append(str(API))
