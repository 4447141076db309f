"""Training: configuration, losses, optimisation, and the glue to Lightning."""
