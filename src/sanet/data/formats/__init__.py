"""Annotations as the tools that draw them export them: one file a format, all over the regions of ``regions.py``."""
