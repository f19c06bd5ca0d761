"""Thin adapters that hand group gradients of other people's training loops to the noise scale."""
