"""The published runs as recipes that derive from one another."""
