"""How does a network respond to this picture, now? A live view of a checkpoint in the browser.

``server/`` and the questions need FastAPI: ``pip install 'microtome[explorer]'``.
"""

from microtome.explorer.live_network import LiveNetwork
from microtome.explorer.server.app import create_app
from microtome.explorer.server.request_limits import Limits
from microtome.explorer.server.serving import serve
from microtome.explorer.share import SharedView, read_shared

__all__ = ["Limits", "LiveNetwork", "SharedView", "create_app", "read_shared", "serve"]
