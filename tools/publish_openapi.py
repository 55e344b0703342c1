"""Renew docs/openapi.json from the routes and wire types: `python -m tools.publish_openapi`."""

from pathlib import Path

from appliance import __version__
from appliance.api.openapi import render

PUBLISHED = Path(__file__).parents[1] / "docs" / "openapi.json"

if __name__ == "__main__":
    PUBLISHED.write_text(render(__version__))
