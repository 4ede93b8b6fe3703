"""How do the atlas's pages become a site that opens from disk? Templates, styles and scripts, no server."""

from microtome.atlas.site.addresses import Addresses, slugs
from microtome.atlas.site.render import render

__all__ = ["Addresses", "render", "slugs"]
