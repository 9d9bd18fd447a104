from typing import Any

GROUPS = (
    *("augment", "conditioning", "constraint", "data", "experiment"),
    *("loss", "model", "optimizer", "penalty", "schedule"),
)
KEYS = (
    *("seed", "latent_dim", "n_critic", "reuse_fake", "ema.", "data.batch_size", "data.replacement", "model."),
    *("loss.", "penalty.", "optimizer.", "trainer.max_", "trainer.precision", "trainer.devices"),
    *("augment.", "conditioning.", "constraint.", "schedule.", "max_gradient_norm", "trainer.sync_batchnorm"),
)


def hyperparameters(choices: dict[str, str], config: dict[str, Any]) -> dict[str, Any]:
    """What may change a run's score, for the columns of HParams: the groups' options and the numbers in them."""
    chosen = {group: option for group, option in choices.items() if group in GROUPS and option}
    numbers = {key: value for key, value in flatten(config).items() if key.startswith(KEYS) and not key.endswith("_")}
    return chosen | numbers


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` -> `{"a.b": 1}`, the keys as they are typed; lists and null become text."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
