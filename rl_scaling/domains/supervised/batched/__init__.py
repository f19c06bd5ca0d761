"""Many trials at once: trials that share a model and a batch size train together in one batched program.

Their parameters lie side by side as the rows of one matrix. A small network on a small batch spends nearly all its time
on overhead; side by side, a hundred trials pay it once.
"""
