"""A configuration as YAML: written for people, read to see what a work directory belongs to."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from jaxnas.errors import UserError
from jaxnas.files import plain

__all__ = ["read_settings", "settings_of", "settings_text"]


def settings_of(config: Any) -> dict[str, Any]:
    """A dataclass instance as nested dictionaries, lists, numbers and text.

    Example:
      >>> from jaxnas.run import Saving
      >>> settings_of({"saving": Saving(steps=100), "widths": (8, 16)})
      {'saving': {'seconds': 60.0, 'steps': 100, 'keep': 2}, 'widths': [8, 16]}
    """
    return json.loads(json.dumps(plain(config), default=repr))


def settings_text(config: Any) -> str:
    """A dataclass instance as YAML."""
    import yaml

    return yaml.safe_dump(settings_of(config), sort_keys=False)


def read_settings(text: str, config: Any) -> dict[str, Any]:
    """What `settings_text` has written, also with the tags of dataclasses and tuples that earlier versions wrote.

    Args:
      text: the content of a YAML file.
      config: a dataclass instance; fields that the text leaves out have the defaults of its class.

    Raises:
      UserError: the text is no YAML, or has a field which the class has not.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads tagged dataclasses as dictionaries and tuples as lists."""

    # Tags of earlier versions.
    Loader.add_multi_constructor("!dataclass:", lambda loader, _, node: loader.construct_mapping(node, deep=True))
    Loader.add_constructor("tag:yaml.org,2002:python/tuple", Loader.construct_sequence)
    try:
        found = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise UserError(error) from None
    if not isinstance(found, dict):
        raise UserError(f"it holds {type(found).__name__}, expected fields")
    # A field of another version is refused; one that came later has its default.
    unknown = [name for name in found if name not in {field.name for field in dataclasses.fields(config)}]
    if unknown:
        raise UserError(f"there is no field {unknown[0]}")
    return _with_defaults(found, config)


def _with_defaults(found: dict[str, Any], config: Any) -> dict[str, Any]:
    """The fields that were found, and the defaults of those that were not, in nested dataclasses too."""
    whole = dict(found)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        # A field that came after the file was written has its default.
        if field.name not in whole:
            factory = field.default_factory
            whole[field.name] = settings_of(field.default if factory is dataclasses.MISSING else factory())
        elif dataclasses.is_dataclass(value) and isinstance(whole[field.name], dict):
            whole[field.name] = _with_defaults(whole[field.name], value)
    return whole
