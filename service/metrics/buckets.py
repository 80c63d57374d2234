"""Bounds of histograms."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LONG_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
HISTORY_ITEMS = (0, 1, 2, 5, 10, 20, 50, 100, 200)
SCORES = (-30, -20, -15, -12, -10, -8, -7, -6, -5, -4, -3, -2, -1, -0.5)
"""Of log-probabilities: what a good first item has depends on the model, so the steps are fine."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
AGES = (
    *(_MINUTE, 5 * _MINUTE, 15 * _MINUTE),
    *(_HOUR, 6 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY, 14 * _DAY, 30 * _DAY, 90 * _DAY),
)
