"""Which settings make two runs the same: every key that conf/ has is in the table of roles."""

import pytest
from omegaconf import OmegaConf

from gan_lightning.files import groups, options
from gan_lightning.runs.identity import find_role, flatten, hyperparameters, role_of, setting

CHOICES = [group for group in groups() if "/" not in group and group not in ("size", "sweep")]  # trainer=debug sizes


@pytest.mark.parametrize("group", CHOICES)
def test_every_key_of_every_option_has_a_role_in_the_table(compose, group):
    for option in options(group):
        words = [f"{group}={option}", *(["data.root=x"] if option == "image_folder" else [])]
        keys = flatten(OmegaConf.to_container(compose(*words, small=False)))
        assert [key for key in keys if find_role(key) is None] == []


@pytest.mark.parametrize(
    ("key", "role"),
    [
        *(("seed", "seed"), ("optimizer.generator.lr", "trains"), ("trainer.devices", "trains")),
        *(("metrics.num_samples", "scores"), ("trainer.limit_val_batches", "scores"), ("metrics.cache", "place")),
        *(("callbacks.checkpoint.every_n_steps", "observes"), ("trainer.log_every_n_steps", "observes")),
        *(("trainer.max_time", "ends"), ("control.early_stopping.patience", "ends"), ("data.root", "place")),
        *(("data.rooted", "trains"), ("trainer.unheard_of", "trains"), ("unheard_of", "trains")),
    ],
)
def test_a_key_has_its_own_role_or_that_of_its_block_and_an_unknown_key_trains(key, role):
    assert role_of(key) == role
    assert (find_role(key) is None) == ("unheard_of" in key)


DIGITS = {"seed": 0, "data": {"root": "a", "reader": {"sha256": {"train_images": "1"}}}}


@pytest.mark.parametrize(
    "other",
    [
        *({"seed": 1}, {"data": {"root": "b"}}, {"trainer": {"log_every_n_steps": 5}}, {"cuda_graph": True}),
        *({"callbacks": {"x": 1}}, {"metrics": {"cache": None}}, {"sweep": None}, {"data": {"reader": {"npm": None}}}),
    ],
)
def test_what_no_score_follows_from_makes_no_other_setting(other):
    assert setting(OmegaConf.to_container(OmegaConf.merge(DIGITS, other))) == setting(DIGITS)


@pytest.mark.parametrize(
    "other",
    [
        *({"latent_dim": 7}, {"metrics": {"num_samples": 9}}, {"trainer": {"max_steps": 5}}, {"unheard_of": 1}),
        {"data": {"reader": {"sha256": {"train_images": "2"}}}},
    ],
)
def test_what_a_score_follows_from_makes_another_setting(other):
    assert setting(OmegaConf.to_container(OmegaConf.merge(DIGITS, other))) != setting(DIGITS)


def test_folders_of_ones_own_pictures_are_not_taken_for_one():
    """Nothing but its place tells one from the other."""
    one, other = ({"data": {"root": root, "reader": {"cache": "x"}}} for root in "ab")
    assert setting(one) != setting(other)


def test_nested_keys_become_dotted_and_lists_stay():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [1], 3: None, "none": {}}) == {
        "a.b": 1,
        "a.c.d": 2,
        "e": [1],
        "3": None,
    }


def test_hparams_have_no_column_twice_and_none_for_what_only_watches(compose):
    config = OmegaConf.to_container(compose(small=False), resolve=True)
    found = hyperparameters({"model": "mlp", "logger": "csv"}, flatten(config | {"gan": config["model"]}))
    assert {"seed", "model", "model.generator.hidden", "trainer.max_epochs", "data.batch_size"} <= found.keys()
    assert found["model"] == "mlp" and "logger" not in found and "data.root" not in found
    assert not [key for key in found if key.startswith(("callbacks.", "gan.", "data.reader.", "metrics."))]
