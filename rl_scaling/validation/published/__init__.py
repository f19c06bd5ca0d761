"""Published figures, computed anew and drawn, each with what it should show beside what it shows.

Those of Zhang et al. 2019, *Which Algorithmic Choices Matter at Which Batch Sizes?*, are made of the noisy quadratic
model (`rl_scaling.domains.nqm`) alone, so that they can be made again in seconds.
"""
