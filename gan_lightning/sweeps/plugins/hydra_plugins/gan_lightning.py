"""Our launcher and sweeper, in the namespace package where Hydra looks for them.

`cli/arguments.py` adds the folder above to the path of a -m run.
"""

from typing import Any

from hydra.plugins import sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from gan_lightning.sweeps import launcher


class ProcessLauncher(launcher.ProcessLauncher):
    """conf/hydra/launcher/process.yaml"""


class Sweeper(sweeper.Sweeper):
    """conf/hydra/sweeper/gan_lightning.yaml"""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from gan_lightning.sweeps.grid import GridSweeper
        from gan_lightning.sweeps.study import StudySweeper

        self.sweeper = StudySweeper() if "sampler" in config.sweep else GridSweeper(max_batch_size=None)
        self.sweeper.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        return self.sweeper.sweep(arguments)
