"""How do pages become a site that opens from disk? By templates, a style sheet and scripts, without a server."""

from microtome.atlas.site.addresses import Addresses, slugs
from microtome.atlas.site.render import render

__all__ = ["Addresses", "render", "slugs"]
