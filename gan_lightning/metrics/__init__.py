"""Scores of generated images: one metric a file, `better` lists them, `scores` computes them all."""
