"""The noisy quadratic model (Zhang et al. 2019): steps to a target risk at any batch size, exact and in seconds.

Its public names are those of `rl_scaling.nqm`.
"""
