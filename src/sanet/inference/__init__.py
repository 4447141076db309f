"""Prediction: over any callable from pictures to logits, without Lightning."""
