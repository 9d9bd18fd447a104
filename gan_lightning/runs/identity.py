"""Which settings make two runs the same: the role of every config key, in one table.

`resume=` asks which keys may change, a study and a sweep's folder which must not, the leaderboard which runs differ in
their seed alone, TensorBoard's HParams which deserve a column.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Role = Literal["trains", "scores", "observes", "ends", "place", "seed"]

# A key has the role of the longest entry that it is or lies below; one without an entry trains. The roles:
#   trains    the numbers of a run follow from it
#   scores    what a run is scored with; only scores of the same kind may be compared
#   observes  it watches, or says how the same numbers are computed
#   ends      when the run is over
#   place     where files are, whose content is known by other means
#   seed      what the runs of one setting differ in
ROLES: dict[str, Role] = {
    "seed": "seed",
    "latent_dim": "trains",
    "n_critic": "trains",
    "reuse_fake": "trains",
    "max_gradient_norm": "trains",
    "gan": "trains",
    "model": "trains",
    "loss": "trains",
    "penalty": "trains",
    "conditioning": "trains",
    "constraint": "trains",
    "augment": "trains",
    "ema": "trains",
    "optimizer": "trains",
    "schedule": "trains",
    "experiment": "trains",  # a group without a block of its own
    "data": "trains",
    "data.num_val_samples": "scores",
    "data.root": "place",
    "data.reader.cache": "place",
    "data.reader.npm": "place",
    "data.reader.debian": "place",
    "data.reader.urls": "place",
    "metrics": "scores",
    "metrics.cache": "place",
    "metrics.inception.weights": "place",  # their hash is checked
    "metrics.inception.fetch": "place",
    "trainer._target_": "trains",
    "trainer.accelerator": "trains",
    "trainer.devices": "trains",
    "trainer.num_nodes": "trains",
    "trainer.strategy": "trains",
    "trainer.sync_batchnorm": "trains",
    "trainer.precision": "trains",
    "trainer.use_distributed_sampler": "trains",
    "trainer.limit_train_batches": "trains",
    "trainer.limit_val_batches": "scores",
    "trainer.max_epochs": "ends",
    "trainer.max_steps": "ends",
    "trainer.max_time": "ends",
    "trainer.check_val_every_n_epoch": "observes",
    "trainer.num_sanity_val_steps": "observes",
    "trainer.log_every_n_steps": "observes",
    "trainer.enable_model_summary": "observes",
    "trainer.enable_progress_bar": "observes",
    "trainer.default_root_dir": "place",
    "callbacks": "observes",
    "control": "ends",
    "logger": "observes",
    "cuda_graph": "observes",
    "resume": "place",
    "sweep": "observes",
    "hydra": "observes",
}
NO_COLUMN = ("gan.", "control.", "data.reader.")  # in HParams: the data's name, and the other blocks, say the same
HASHES = ("data.reader.sha256", "data.reader.checksums")  # data that have them are the same wherever they lie


def find_role(key: str) -> Role | None:
    """The role of a key or a group as the table has it; None where neither it nor a block above it has an entry."""
    key = key.replace("/", ".")
    while key and key not in ROLES:
        key = key.rpartition(".")[0]
    return ROLES.get(key)


def role_of(key: str) -> Role:
    """The role of a dotted key; what the table does not know trains."""
    return find_role(key) or "trains"


def setting(config: Mapping[Any, Any]) -> dict[str, Any]:
    """The keys and values that runs must share if their scores are put together; the seed is not one of them.

    A data set without hashes (a folder of one's own pictures) is known by its place alone, so `data.root` is in.

    Args:
        config: of a run, as plain containers. References in it need not be resolved.
    """
    keys = flatten(config)
    shared = {key: value for key, value in keys.items() if role_of(key) in ("trains", "scores", "ends")}
    if "data.root" in keys and not any(key.startswith(HASHES) for key in keys):
        shared["data.root"] = keys["data.root"]
    return shared


def words_compared(overrides: Iterable[str]) -> set[str]:
    """What was typed for a run, in no order, without what does not change its scores."""
    return {word for word in overrides if role_of(word.lstrip("+~").partition("=")[0]) not in ("observes", "place")}


def hyperparameters(choices: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, int | float | str]:
    """What a run's score may follow from, for the columns of HParams: the groups' options, and the keys that train.

    Lists and null become text, which is all that a tracker can store of them.

    Args:
        choices: the option of each group, `{"model": "mlp"}`.
        settings: dotted keys and their values.
    """
    chosen = {group: option for group, option in choices.items() if find_role(group) == "trains" and option}
    keys = {
        key: value if isinstance(value, int | float) else str(value)
        for key, value in settings.items()
        if role_of(key) in ("trains", "ends", "seed") and not key.startswith(NO_COLUMN) and not key.endswith("_")
    }
    return keys | chosen


def flatten(config: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one with dotted keys: `{"a": {"b": 1}}` -> `{"a.b": 1}`. Lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
