"""`unibind ui`: a local web app over one or several projects. Only this room imports NiceGUI."""

PORT = 8642
