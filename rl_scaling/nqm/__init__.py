"""The noisy quadratic model."""
