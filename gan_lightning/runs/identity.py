"""Which settings make two runs the same: one table, asked by resume, sweeps, the leaderboard and HParams.

| role | what follows from the setting | on resume | two runs that differ in it |
| --- | --- | --- | --- |
| trains | the numbers of a run | may not change | are not put together |
| ends | how long it goes | may change, unless a schedule depends on the end | are not put together |
| scores | what it is scored with | may change | are not put together |
| observes | what is logged and shown | may change | may be seeds of one setting |
| place | where files are | may change, but for the run's folder | may be seeds of one setting |
"""

from collections.abc import Iterable
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

Role = Literal["trains", "ends", "scores", "observes", "place"]

# A key has the role of its longest beginning here. One that is not here is a user's own, and taken to train.
ROLES: dict[str, Role] = {
    **dict.fromkeys(("seed", "latent_dim", "n_critic", "reuse_fake", "max_gradient_norm", "ema", "gan"), "trains"),
    **dict.fromkeys(("model", "loss", "penalty", "conditioning", "constraint", "augment"), "trains"),
    **dict.fromkeys(("optimizer", "schedule", "data", "trainer", "experiment", "size"), "trains"),
    **dict.fromkeys(("data._target_", "data.name", "data.image_shape", "data.num_classes", "data.reader"), "trains"),
    **dict.fromkeys(("data.batch_size", "data.replacement", "data.seed", "data.num_test"), "trains"),
    **dict.fromkeys(("trainer._target_", "trainer.accelerator", "trainer.devices", "trainer.num_nodes"), "trains"),
    **dict.fromkeys(("trainer.precision", "trainer.strategy", "trainer.sync_batchnorm"), "trains"),
    **dict.fromkeys(("trainer.limit_train_batches", "trainer.use_distributed_sampler"), "trains"),
    **dict.fromkeys(("control", "trainer.max_epochs", "trainer.max_steps", "trainer.max_time"), "ends"),
    **dict.fromkeys(("metrics", "data.num_val_samples", "trainer.limit_val_batches"), "scores"),
    **dict.fromkeys(("callbacks", "logger", "hydra", "sweep", "cuda_graph"), "observes"),
    **dict.fromkeys(("trainer.log_every_n_steps", "trainer.check_val_every_n_epoch"), "observes"),
    **dict.fromkeys(("trainer.enable_progress_bar", "trainer.enable_model_summary"), "observes"),
    "trainer.num_sanity_val_steps": "observes",
    **dict.fromkeys(("resume", "data.root", "data.reader.cache", "trainer.default_root_dir"), "place"),
    **dict.fromkeys(("metrics.cache", "metrics.inception.weights"), "place"),
}
NOT_SHOWN = ("gan.", "control.", "data.reader.")  # in HParams: other keys say the same, or it is no setting to compare


def role(key: str) -> Role:
    """The role of a key of the config, or of a group: `trainer.max_epochs`, `model`, `hydra/launcher`."""
    part = key.replace("/", ".")
    while part:
        if part in ROLES:
            return ROLES[part]
        part = part.rpartition(".")[0]
    return "trains"


def compared(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of a run's settings, by their keys, that runs must share for their scores to be compared."""
    return {key: value for key, value in settings.items() if role(key) not in ("observes", "place")}


def setting(config: DictConfig) -> str:
    """What the seeds of one setting have in common, as one text. Values that refer to others stay references."""
    content: Any = OmegaConf.to_container(config)
    content.pop("seed", None)
    return OmegaConf.to_yaml(OmegaConf.create(compared(flatten(content))), sort_keys=True)


def flatten(config: dict[Any, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`, the keys as they are typed."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def hyperparameters(choices: dict[str, str], settings: dict[str, Any]) -> dict[str, int | float | str]:
    """What a run's score may depend on, for the columns of HParams: options of groups, and values.

    Args:
        choices: the option of each group, `{"model": "mlp"}`.
        settings: of `flatten`.
    """
    groups = {group: choice for group, choice in choices.items() if choice and _is_of_training(group)}
    values = {key: value for key, value in settings.items() if _is_hyperparameter(key)}
    return groups | {key: value if isinstance(value, int | float) else str(value) for key, value in values.items()}


def _is_of_training(group: str) -> bool:
    return role(group) == "trains" and group not in ("size", "trainer") and "/" not in group


def _is_hyperparameter(key: str) -> bool:
    return role(key) in ("trains", "ends") and not key.endswith("_") and not key.startswith(NOT_SHOWN)


def words_compared(overrides: Iterable[str]) -> set[str]:
    """What was typed for a run, without what other runs of the same setting may differ in; in no order."""
    return {word for word in overrides if role(word.lstrip("+~").partition("=")[0]) not in ("observes", "place")}
