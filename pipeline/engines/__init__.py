"""Engines: where the parts of a stage are made. The packages below know none of them."""
