"""Prediction: over any callable from images to logits, without Lightning."""
