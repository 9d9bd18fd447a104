"""The run of this process: what was typed and chosen for it, whether its config is new or comes from its folder."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from gan_lightning.runs.folder import chosen_options, typed_overrides


def saved_folder() -> Path | None:
    """The run's folder, where its config comes from there: it is resumed, or a job of a sweep. None: composed anew."""
    hydra = HydraConfig.get()
    return Path(hydra.runtime.output_dir) if hydra.output_subdir is None else None


def choices() -> dict[str, str]:
    """The option taken from each config group, `{"model": "mlp", ...}`."""
    folder = saved_folder()
    return (chosen_options(folder) if folder else {}) or dict(HydraConfig.get().runtime.choices)


def overrides() -> list[str]:
    """What was typed when the run was started, and when it was resumed."""
    typed = list(HydraConfig.get().overrides.task)
    if folder := saved_folder():
        typed = [word for word in typed if not word.startswith(("hydra", "resume=", "++resume="))]
        typed = typed_overrides(folder) + typed
    return typed
