"""The sample world "tabletop": six materials × four shapes, every object in seven modalities.

Everything is rendered from one record per object (`data.tabletop.objects.ObjectSpec`): see
`data.tabletop.world`.
"""

from data.tabletop.settings import TabletopSettings
from data.tabletop.world import build_world

__all__ = ["TabletopSettings", "build_world"]
