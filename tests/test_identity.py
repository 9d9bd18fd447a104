"""Which settings make two runs the same: every key has a role, and everybody asks for it."""

import json

import pytest
from omegaconf import OmegaConf

from gan_lightning.files import groups, options
from gan_lightning.runs.identity import ROLES, compared, flatten, hyperparameters, role, setting, words_compared

EXPLICIT = ("data", "trainer")  # blocks whose keys have different roles: each of them is in the table
CHOICES = [
    f"{group}={option}" for group in groups() if group not in ("size", "sweep") for option in options(group)
    if "/" not in group
]  # fmt: skip


@pytest.mark.parametrize("choice", ["trainer=debug", "sweep=mlp_tpe", "+data.num_val_samples=1", *CHOICES])
def test_every_key_of_the_config_has_a_role(compose, choice):
    content = OmegaConf.to_container(compose(choice, small=False))
    for key in flatten(content):
        block, _, rest = key.partition(".")
        assert block in ROLES, f"{key}: add its block to the table"
        if block in EXPLICIT:
            assert f"{block}.{rest.partition('.')[0]}" in ROLES, f"{key}: add it to the table"


def test_every_group_has_a_role():
    assert {group.partition("/")[0] for group in groups()} <= ROLES.keys()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        *(("seed", "trains"), ("model.generator.hidden", "trains"), ("trainer.precision", "trains")),
        *(("trainer.max_steps", "ends"), ("control.stop.patience", "ends"), ("cuda_graph", "observes")),
        *(("data.root", "place"), ("metrics.cache", "place"), ("metrics.num_samples", "scores")),
        *(("trainer.log_every_n_steps", "observes"), ("hydra/launcher", "observes"), ("sweep/sampler", "observes")),
        *(("mine.whatever", "trains"), ("trainer.of_lightning", "trains")),  # a user's own
    ],
)
def test_a_key_has_the_role_of_its_longest_beginning(key, expected):
    assert role(key) == expected


@pytest.mark.parametrize(
    ("override", "is_same"),
    [
        *(("data.root=/elsewhere", True), ("trainer.log_every_n_steps=7", True), ("seed=5", True)),
        *(("logger=csv", True), ("callbacks.pictures.nrow=4", True), ("metrics.cache=null", True)),
        *(("optimizer.generator.lr=1e-4", False), ("trainer.max_epochs=3", False), ("penalty=none", False)),
        ("metrics.num_samples=600", False),
    ],
)
def test_runs_are_of_one_setting_whatever_only_watches_or_says_where_files_are(compose, override, is_same):
    assert (setting(compose(small=False)) == setting(compose(override, small=False))) == is_same


def test_typed_words_are_compared_in_no_order_and_without_what_watches():
    first = ["model=dcgan", "seed=1", "trainer.log_every_n_steps=1", "+trainer.profiler=simple"]
    assert words_compared(first) == {"model=dcgan", "seed=1", "+trainer.profiler=simple"}


def test_flat_keys_are_those_that_are_typed():
    flat = flatten({"a": {"b": 1, "c": [1, 2]}, "d": None})
    assert flat == {"a.b": 1, "a.c": [1, 2], "d": None}
    assert compared({"seed": 1, "data.root": "x"}) == {"seed": 1}


def test_hyperparameters_are_what_a_score_may_depend_on_and_can_be_stored(compose):
    settings = flatten(OmegaConf.to_container(compose(small=False), resolve=True))
    found = hyperparameters({"model": "mlp", "logger": "csv", "penalty": "r1", "trainer": "cpu"}, settings)
    assert found["model"] == "mlp" and found["penalty"] == "r1" and found["optimizer.generator.lr"] == 2.11e-3
    assert found["model.generator.hidden"] == str(settings["model.generator.hidden"])
    assert not found.keys() & {
        "logger",
        "trainer",
        "data.root",
        "penalty._target_",
        "gan.seed",
        "callbacks.pictures.nrow",
    }
    json.dumps(found)
