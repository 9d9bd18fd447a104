"""The place in a run, as Lightning's loops keep it in a checkpoint. Nothing else knows their layout."""

from typing import Any


def set_place(fit_loop: dict[str, Any], iteration: int, num_batches: int) -> None:
    """Make the saved progress of Lightning's loops say that so many iterations are done, and nothing is half done.

    Args:
        fit_loop: `checkpoint["loops"]["fit_loop"]`.
        iteration: done so far.
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


def epochs_done(checkpoint: dict[str, Any]) -> int:
    """Epochs that were over when a checkpoint was written."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"])
