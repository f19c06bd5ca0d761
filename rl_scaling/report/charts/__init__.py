"""The charts of the page; a file's charts are on it once the file is named here, in the order of the page."""

MODULES = (
    "fronts",
    "critical_batch",
    "noise_scale",
    "frozen",
    "learning_curves",
    "learning_rates",
    "algorithms",
    "budgets",
)
