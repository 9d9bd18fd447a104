"""Search spaces: what is typed or written in YAML -> Optuna's distributions -> overrides of a job."""

import re

import hydra
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from gan_lightning.files import conf_dir
from gan_lightning.sweeps.overrides import for_jobs, job_folder, of_the_run, parse
from gan_lightning.sweeps.sampler import EveryCombination, values
from gan_lightning.sweeps.space import as_override, distribution, first_values, override, split, suggest

GIVEN = [
    ({"low": 1e-5, "high": 1e-3, "log": True}, FloatDistribution(1e-5, 1e-3, log=True)),
    ({"low": 0.1, "high": 0.5, "step": 0.1}, FloatDistribution(0.1, 0.5, step=0.1)),
    ({"low": 1, "high": 5}, IntDistribution(1, 5)),
    ({"low": 16, "high": 256, "log": True}, IntDistribution(16, 256, log=True)),
    ({"choices": ["mlp", 1, None, True]}, CategoricalDistribution(["mlp", 1, None, True])),
    ({"choices": [[0.0, 0.99], [0.5, 0.999]]}, CategoricalDistribution(["[0.0,0.99]", "[0.5,0.999]"])),
]


@pytest.mark.parametrize(("given", "expected"), GIVEN, ids=str)
def test_space_in_yaml_becomes_a_distribution(given, expected):
    assert distribution("key", given) == expected


@pytest.mark.parametrize(
    "given",
    [{}, {"low": 1}, {"low": 1, "high": 2, "log": True, "base": 2}, {"choices": []}, {"low": "a", "high": 2}],
    ids=str,
)
def test_a_space_that_is_not_understood_names_its_key(given):
    with pytest.raises(ValueError, match=r"sweep\.space: penalty\.weight=.* is not understood; write \{low: "):
        distribution("penalty.weight", given)


def test_a_space_that_optuna_refuses_names_its_key():
    with pytest.raises(ValueError, match=r"sweep\.space: lr=\{'low': 0\.0.*log"):
        distribution("lr", {"low": 0.0, "high": 1.0, "log": True})


def test_values_typed_in_hydras_words_become_a_space():
    words = [
        "model=dcgan",
        "optimizer.generator.lr=tag(log,interval(1e-5,1e-3))",
        "penalty.weight=interval(0.1,1.0)",
        "n_critic=range(1,6)",
        "loss=minimax,non_saturating",
        "model.generator.hidden=[256,512],[512,512]",
    ]
    fixed, space = split(words)
    assert fixed == ["model=dcgan"]
    assert space == {
        "optimizer.generator.lr": {"low": 1e-5, "high": 1e-3, "log": True},
        "penalty.weight": {"low": 0.1, "high": 1.0},
        "n_critic": {"low": 1, "high": 5, "step": 1},
        "loss": {"choices": ["minimax", "non_saturating"]},
        "model.generator.hidden": {"choices": ["[256,512]", "[512,512]"]},
    }
    assert all(distribution(key, given) for key, given in space.items())


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00031, "0.00031"), (1e-05, "1e-05"), (3, "3"), (None, "null"), (True, "true"), ("[0.0, 0.99]", "[0.0, 0.99]")],
)
def test_a_value_reaches_the_config_as_it_is(value, text):
    assert override("optimizer.generator.betas", value) == f"optimizer.generator.betas={text}"
    read = parse([override("optimizer.generator.betas", value)])[0].value()
    assert read == ([0.0, 0.99] if isinstance(value, str) else value)


ODD = ["a,b", "1", "null", "Yes", "a=b", "x(1)", "it's", "a b", "", "1e-3", "mlp", "x-y.z", True, None, 3, 1e-5, -0.5]


@pytest.mark.parametrize("value", [*ODD, ["a b", "c"], [["1", 2], {"k": "x,y"}]], ids=repr)
def test_every_choice_reaches_the_config_as_it_was_written(value):
    """As text it stays text, and a list a list, through Optuna and Hydra's grammar."""
    (choice,) = distribution("key", {"choices": [value]}).choices
    assert plain(parse([override("key", choice)])[0].value()) == value


def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return getattr(value, "text", value)


def test_a_space_is_tried_by_its_first_values():
    space = {"lr": {"low": 0.1, "high": 1.0}, "betas": {"choices": [[0.0, 0.99]]}, "n": {"low": 1, "high": 2}}
    assert first_values({key: distribution(key, given) for key, given in space.items()}) == [
        "lr=0.1",
        "betas=[0.0,0.99]",
        "n=1",
    ]


def test_a_trial_that_was_begun_keeps_its_values():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    distributions = [distribution("key", given) for given, _ in GIVEN]
    trial = study.ask()
    first = [suggest(trial, str(i), d) for i, d in enumerate(distributions)]
    study.sampler = optuna.samplers.RandomSampler(seed=1)
    again = optuna.Trial(study, trial._trial_id)
    assert [suggest(again, str(i), d) for i, d in enumerate(distributions)] == first


def test_grid_sampler_gives_every_combination_once():
    keys = {
        "a": IntDistribution(1, 5, step=2),
        "b": CategoricalDistribution(["x", "y"]),
        "c": FloatDistribution(0, 1, step=0.5),
    }
    study = optuna.create_study(sampler=EveryCombination(keys))
    drawn = []
    for _ in range(18):
        trial = study.ask()
        drawn.append(tuple(suggest(trial, key, d) for key, d in keys.items()))
        study.tell(trial, 0.0)
    assert len(set(drawn)) == 18
    assert drawn[:3] == [(1, "x", 0.0), (1, "x", 0.5), (1, "x", 1.0)]


@pytest.mark.parametrize(("low", "high", "step", "count"), [(0.1, 0.3, 0.1, 3), (0.0, 0.7, 0.1, 8), (1, 5, 2, 3)])
def test_values_of_a_range_are_in_it(low, high, step, count):
    """0.1 + 2 * 0.1 is more than 0.3."""
    given = distribution("key", {"low": low, "high": high, "step": step})
    drawn = values("key", given)
    assert len(drawn) == count and (drawn[0], drawn[-1]) == (low, high)
    assert all(given._contains(value) for value in drawn)


def test_grid_sampler_refuses_a_range_without_steps():
    with pytest.raises(ValueError, match=r"sweep\.space: lr needs a step or choices"):
        values("lr", FloatDistribution(0, 1))


# --- What a job's config follows from ----------------------------------------------------------------------


@pytest.fixture
def sweep_config(tmp_path):
    def compose(*overrides):
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return hydra.compose(
                "train", ["sweep.name=night", f"hydra.sweep.dir={tmp_path}", *overrides], return_hydra_config=True
            )

    return compose


def test_jobs_get_the_settings_of_the_sweep_and_what_was_typed_in_their_place(sweep_config):
    config = sweep_config("sweep=mlp_tpe")
    typed = ["sweep=mlp_tpe", "sweep.workers=2", "sweep/pruner=none", "trainer.max_epochs=3", "seed=7"]
    words = for_jobs(config, typed)
    assert words[:-1] == ["model=mlp", "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=3", "seed=7"]
    assert words[-1].startswith("hydra.sweep.dir=")  # where all jobs of the sweep are


@pytest.mark.parametrize(
    ("typed", "twice"), [("seed=1,1", "1"), ("seed=choice(3,1,3)", "3"), ("optimizer.generator.lr=1e-3,0.001", "0.001")]
)
@pytest.mark.parametrize("kind", ["grid", "study"])
def test_a_value_that_is_typed_twice_is_refused(sweep_config, kind, typed, twice):
    with pytest.raises(ValueError, match=rf"^{re.escape(typed)}: {twice} is there twice; leave one out$"):
        for_jobs(sweep_config(f"sweep={kind}"), [typed])


def test_what_repeats_a_run_is_without_what_only_its_sweep_needs():
    words = ["model=mlp", "hydra.sweep.dir='x'", "hydra/launcher=basic", "+callbacks.pruning={trial:1}", "seed=1"]
    assert of_the_run(words) == ["model=mlp", "seed=1"]


def test_each_job_has_a_folder_of_its_number(sweep_config, tmp_path):
    assert job_folder(sweep_config("sweep=grid"), 12) == tmp_path / "12"


def test_a_callback_survives_the_grammar_of_the_command_line():
    given = {"_target_": "a.B", "storage": "out puts/it's, {so}", "n": None, "on": True, "f": 1e-05, "list": [1, "x"]}
    assert plain(parse([f"+callbacks.pruning={as_override(given)}"])[0].value()) == given
