"""Constants from measurements: fit, intervals, and how far they transfer."""
