"""Experiments of the papers that need no Atari: seconds to minutes on one core."""
