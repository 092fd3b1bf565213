"""Notebooks, and the tool that runs them: ``python -m notebooks.refresh``."""
