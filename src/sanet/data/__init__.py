"""Datasets list and decode; transforms and loading are files of their own."""
