"""The published runs as recipes that derive from one another, and whole tables of them with several seeds."""
