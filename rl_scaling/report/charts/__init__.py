"""One file per chart; a chart is on the page once its file is named here, in the order of the page."""

MODULES = (
    "fronts",
    "noisy_quadratic_model",
    "critical_batch",
    "noise_scale",
    "frozen",
    "adaptive_batch",
    "learning_curves",
    "learning_rates",
    "algorithms",
    "agreement",
    "budgets",
)
