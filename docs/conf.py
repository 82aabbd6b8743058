"""Sphinx settings. The pages under _api/ are written anew at every build, from the modules that exist."""

import importlib.util
import pkgutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import jaxnas  # noqa: E402

project = "jaxnas"
author = "the jaxnas authors"
copyright = author
release = version = jaxnas.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"jaxnas {release}"
default_role = "literal"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# The order in which a newcomer meets the library. A module that is not named here comes after these.
ORDER = (
    "base architectures ops spaces relaxations policies estimators searchers costs derive train tabular morphisms "
    "population data run checkpoint export plot describe"
).split()


def public_modules() -> list[str]:
    """Return the dotted names of the modules right under jaxnas, in the order of reading."""
    found = {module.name for module in pkgutil.iter_modules(jaxnas.__path__) if not module.name.startswith("_")}
    return [f"jaxnas.{name}" for name in [n for n in ORDER if n in found] + sorted(found.difference(ORDER))]


def page(name: str) -> str:
    """Return the page of one module: itself, the packages inside it, and all modules if it lists no public names.

    Nothing is imported here. A module that fails to import is a warning of autodoc, hence an error of the build.
    """
    modules = [name]
    spec = importlib.util.find_spec(name)
    origin = Path(spec.origin) if spec is not None and spec.origin else None
    if spec is not None and spec.submodule_search_locations is not None:
        lists_names = origin is not None and "__all__" in origin.read_text(encoding="utf-8")
        inside = [m for m in pkgutil.iter_modules(spec.submodule_search_locations) if not m.name.startswith("_")]
        modules += [f"{name}.{module.name}" for module in inside if module.ispkg or not lists_names]
    lines = [name, "=" * len(name), ""]
    for module in modules:
        if module != name:
            lines += [module, "-" * len(module), ""]
        lines += [f".. automodule:: {module}", ""]
    return "\n".join(lines)


def write_api() -> None:
    """Write one page for each module, touch none that has not changed, and drop those of modules that are gone."""
    folder = HERE / "_api"
    folder.mkdir(exist_ok=True)
    pages = {f"{name}.rst": page(name) for name in public_modules()}
    listing = "".join(f"   {name.removesuffix('.rst')}\n" for name in pages)
    pages["index.rst"] = f"Modules\n=======\n\n.. toctree::\n   :maxdepth: 1\n\n{listing}"
    for stale in set(path.name for path in folder.glob("*.rst")) - set(pages):
        (folder / stale).unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def skip_tuple_fields(app, what, name, obj, skip, options):
    """Leave out the fields of NamedTuples, which the docstring of the class describes."""
    del app, what, name, options
    return True if type(obj).__name__ == "_tuplegetter" else skip


def setup(app):
    write_api()
    app.connect("autodoc-skip-member", skip_tuple_fields)
