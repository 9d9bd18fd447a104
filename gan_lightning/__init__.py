"""Train and compare GANs on small images with PyTorch Lightning and Hydra.

Kept free of imports: `python -m gan_lightning --help` has to answer at once.
"""

__version__ = "0.1.0"
