"""Keep a new run out of the folder of another one."""

import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gan_lightning.cli.processes import rank
from gan_lightning.runs.folder import check_new
from gan_lightning.terminal import say

USAGE = 2  # exit code


class NewRun(Callback):
    """End the command before it writes anything, if the folder of the new run already holds a run.

    A resumed run, a job of a sweep and Lightning's other ranks do not have this callback: they start with
    hydra.output_subdir=null.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if rank() > 0:  # the first process has begun the run
            return
        HydraConfig.instance().set_config(config)  # as Hydra does next; the folder's name may refer to it
        try:
            check_new(Path(OmegaConf.select(config, "hydra.run.dir")))
        except (OSError, OmegaConfBaseException):
            return  # Hydra meets the same error next, and it is explained then
        except ValueError as error:
            say(f"error: {error}")
            sys.exit(USAGE)  # Hydra turns an exception of a callback into a warning
