"""Scores of generated images, offline: a judge's features, one metric a file; `scores` joins them."""
