"""The text that `--help` prints."""

import re
import string
import textwrap

from omegaconf import OmegaConf

from gan_lightning.files import conf_dir, groups, options


def help_text(config_name: str) -> str:
    """Fill in conf/hydra/help/<command>.yaml. Without that file, return the command's YAML with its comments.

    Hydra's own --help gets slower with every option in conf/.
    """
    text = (conf_dir() / f"{config_name}.yaml").read_text(encoding="utf-8")
    keys = re.sub(r"(?ms)^(defaults|hydra):.*?(?=^\w|\Z)", "", text)  # with their comments
    template = conf_dir() / "hydra" / "help" / f"{config_name}.yaml"
    if not template.exists():
        return keys.strip()
    return string.Template(OmegaConf.load(template).template).substitute(
        APP_CONFIG_GROUPS=_describe_options(text), CONFIG=re.sub(r"(?m)^#.*\n", "", keys).strip()
    )


def _describe_options(text: str) -> str:
    """List every option with the first comment of its file. A star marks the defaults of the config in `text`."""
    defaults: dict[str, str] = {}
    for entry in OmegaConf.to_container(OmegaConf.create(text))["defaults"]:  # type: ignore[call-overload, index]
        defaults.update(entry if isinstance(entry, dict) else {})
    lines = []
    for group in groups():
        lines.append(group)
        for option in options(group):
            content = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8")
            comment = re.search(r"^# (?!@package)(.*)", content, re.MULTILINE)
            star = "*" if defaults.get(group) == option else " "
            about = textwrap.shorten(comment[1], 88, placeholder=" …") if comment else ""
            lines.append(f"  {star} {option:<15} {about}".rstrip())
    return "\n".join(lines)
