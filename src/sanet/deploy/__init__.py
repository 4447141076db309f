"""Networks on their way into use: what they cost, and files that run without this package."""
