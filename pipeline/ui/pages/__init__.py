"""The pages of `unibind ui`, one module each; `PAGES` of pipeline/ui/serve.py lists them."""
