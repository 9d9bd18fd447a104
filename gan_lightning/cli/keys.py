"""Find the key that a user types for a place in the config."""

import re
from functools import cache

from omegaconf import DictConfig, OmegaConf

from gan_lightning.files import conf_dir

REFERENCE = re.compile(r"\$\{(?:oc\.select:)?(\w[\w.]*)(?:,[^}]*)?\}")


def typed_key(key: str, config: DictConfig | None = None) -> str:
    """Follow references: `gan.penalty.weight` -> `penalty.weight`, if the config has `gan: {penalty: ${penalty}}`.

    Args:
        key: of a block or value; a key without a reference on its way is returned as it is.
        config: conf/train.yaml if None.
    """
    texts = OmegaConf.to_container(_train_yaml() if config is None else config, resolve=False)
    names = key.split(".")
    for length, name in enumerate(names, start=1):
        texts = texts.get(name) if isinstance(texts, dict) else None
        if isinstance(texts, str) and (reference := REFERENCE.fullmatch(texts)):
            return typed_key(".".join([reference[1], *names[length:]]), config)
    return key


@cache
def _train_yaml() -> DictConfig:
    config = OmegaConf.load(conf_dir() / "train.yaml")
    assert isinstance(config, DictConfig)
    return config
