"""The last part of the name of a run's folder, which all processes of the run must agree on.

The rest of it, outputs/<model>-<data>/, is `hydra.run.dir` in conf/train.yaml.
"""

import os
from datetime import datetime, timedelta


def run_name(rank: int) -> str:
    """`${run_name:}` in the YAML: the time at which a run starts; under srun the number of the job.

    Under torchrun the first process's time counts for all.
    """
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _from_rank_zero(now, rank)
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")  # a job that is queued again counts its steps anew
        return f"slurm_{os.environ['SLURM_JOB_ID']}_{os.environ['SLURM_STEP_ID']}_{restarts}"
    return now


def _from_rank_zero(text: str, rank: int) -> str:
    """The text of the first process, sent through the store that torchrun keeps for its processes."""
    from torch.distributed import TCPStore

    key = f"gan_lightning/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=timedelta(minutes=5))
    if rank == 0:
        store.set(key, text)
    return store.get(key).decode()
