"""``python -m spatialconv`` is the command ``spatialconv``."""

from .cli import app

app()
