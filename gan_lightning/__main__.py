"""`python -m gan_lightning` trains; the other commands are modules: `python -m gan_lightning.sample`."""

from gan_lightning.train import main

# Lightning starts the other ranks of a run as `python -m <__main__.__spec__.name>`, which needs this file.
if __name__ == "__main__":
    main()
