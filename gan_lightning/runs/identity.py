"""Which settings make two runs the same: the role of every config key, in one table.

`resume=` asks which keys may change, a study and a sweep's folder which must not, the leaderboard which runs differ in
their seed alone, TensorBoard's HParams which deserve a column.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Role = Literal["trains", "scores", "observes", "ends", "place", "seed"]

# fmt: off
KEYS: dict[Role, tuple[str, ...]] = {
    "trains": (    # the numbers of a run follow from it
        "latent_dim", "n_critic", "reuse_fake", "max_gradient_norm", "gan", "model", "loss", "penalty", "conditioning",
        "constraint", "augment", "ema", "optimizer", "schedule", "data", "trainer._target_", "trainer.accelerator",
        "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.sync_batchnorm", "trainer.precision",
        "trainer.use_distributed_sampler", "trainer.limit_train_batches",
        "experiment",  # a group without a block of its own
        "control.record",  # without it a resumed run keeps neither its end nor its scores
    ),
    "scores": (    # what a run is scored with; only scores of the same kind may be compared
        "metrics", "data.num_val_samples", "trainer.limit_val_batches",
    ),
    "observes": (  # it watches, or says how the same numbers are computed
        "callbacks", "logger", "cuda_graph", "control.cuda_graph", "sweep", "hydra", "trainer.check_val_every_n_epoch",
        "trainer.num_sanity_val_steps", "trainer.log_every_n_steps", "trainer.enable_model_summary",
        "trainer.enable_progress_bar",
    ),
    "ends": (      # when the run is over
        "control", "trainer.max_epochs", "trainer.max_steps", "trainer.max_time",
    ),
    "place": (     # where files are whose content is known by other means, such as a hash
        "data.root", "data.reader.cache", "data.reader.npm", "data.reader.debian", "data.reader.urls", "metrics.cache",
        "metrics.inception.weights", "metrics.inception.fetch", "trainer.default_root_dir", "resume",
    ),
    "seed": (      # what the runs of one setting differ in
        "seed",
    ),
}
# fmt: on
ROLES = {key: role for role, keys in KEYS.items() for key in keys}
NO_COLUMN = ("gan.", "control.", "data.reader.")  # in HParams: the data's name, and the other blocks, say the same
HASHES = ("data.reader.sha256", "data.reader.checksums")  # data that have them are the same wherever they lie


def find_role(key: str) -> Role | None:
    """The role of a key or a group: of its own entry in the table, else of the nearest block above it, else None."""
    key = key.replace("/", ".")
    while key and key not in ROLES:
        key = key.rpartition(".")[0]
    return ROLES.get(key)


def role_of(key: str) -> Role:
    """The role of a dotted key; a key that the table does not know trains."""
    return find_role(key) or "trains"


def setting(config: Mapping[Any, Any]) -> dict[str, Any]:
    """The keys and values that runs must share if their scores are put together; the seed is not one of them.

    A data set without hashes (a folder of one's own pictures) is known by its place alone, so `data.root` is in.
    References in the config need not be resolved.
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
