"""Rows of settings, each trained with several seeds: what is finished is kept, and differences have intervals."""
