"""A stranger's package: parts of their own, installed nowhere, opened with ``--import my_lab``."""
