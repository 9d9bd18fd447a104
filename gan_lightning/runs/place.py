"""The place in a run, as Lightning's loops keep it in a checkpoint.

The layout is private to Lightning and may change with its version. Nothing else in this package knows it.
"""

from typing import Any


def set_place(fit_loop: dict[str, Any], iteration: int, num_batches: int) -> None:
    """Make the progress in `checkpoint["loops"]["fit_loop"]` say: so many iterations are done, and none is half done.

    Args:
        num_batches: iterations in an epoch.
    """
    epoch, within = divmod(iteration, num_batches)
    begun = epoch + 1 if within else epoch  # epochs; one that has not begun starts with its hooks
    epochs = {"ready": begun, "started": begun, "processed": epoch, "completed": epoch}
    fit_loop["epoch_progress"] = {"total": epochs, "current": dict(epochs)}
    fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"] = iteration
    states = ("ready", "started", "processed", "completed")
    fit_loop["epoch_loop.batch_progress"] |= {
        "total": dict.fromkeys(states, iteration),
        "current": dict.fromkeys(states, within),
        "is_last_batch": False,
    }


def iterations_done(checkpoint: dict[str, Any]) -> int:
    """The iterations that a run had done when it wrote a checkpoint.

    Raises:
        ValueError: if its parts disagree: training would silently continue from the wrong place.
        Exception: if a part is missing, or is something else than a run writes.
    """
    iteration, loop = checkpoint["global_step"], checkpoint["loops"]["fit_loop"]
    counts = [
        loop["epoch_loop.batch_progress"]["total"]["completed"],
        loop["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"],
        loop["epoch_loop.state_dict"]["_batches_that_stepped"],
        *(loader["iteration"] for loader in loop["state_dict"].get("combined_loader", [])),
    ]
    if type(iteration) is not int or any(count != iteration for count in counts):
        raise ValueError("its iteration, loops, optimizers and data are not at the same place")
    return iteration


def epochs_done(checkpoint: dict[str, Any]) -> int:
    """The whole epochs that a run had done when it wrote a checkpoint."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"])
