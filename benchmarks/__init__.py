"""Each benchmark compares, side by side in one run, with what a user would pick instead and with a physical limit."""
