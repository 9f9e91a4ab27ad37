"""The sample world "tabletop": six materials × four shapes, every object in seven modalities.

Everything is rendered from one record per object (`data.tabletop.objects.ObjectSpec`): see
`data.tabletop.world`. This package imports neither, as every command reads the settings alone.
"""
