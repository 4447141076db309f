"""Networks to compare with, each from its own paper."""
