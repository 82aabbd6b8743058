"""Package metadata: the version comes from jaxnas/__init__.py, the core requirements from requirements.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Return `__version__` without importing the package."""
    text = (ROOT / "jaxnas" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, flags=re.MULTILINE)
    if match is None:
        raise RuntimeError('jaxnas/__init__.py has no line of the form __version__ = "X.Y.Z"')
    return match.group(1)


def read_requirements() -> list[str]:
    """Return the lines of requirements.txt without comments and blank lines."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    stripped = (line.split("#")[0].strip() for line in lines)
    return [line for line in stripped if line]


def read_readme() -> str:
    """Return README.md, or nothing in a tree that has none."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


PLOT = ["matplotlib>=3.10,<4"]
FARM = ["distributed>=2026.3,<2027"]
EXPORT = ["flatbuffers>=24.3,<26"]

EXTRAS = {
    "tf": ["tensorflow-cpu>=2.20,<3"],
    "data": ["grain>=0.2.18,<0.3"],
    "log": ["tensorboardX>=2.6.5,<3"],
    "plot": PLOT,
    "farm": FARM,
    "export": EXPORT,
    "dev": [
        *FARM,
        *PLOT,
        *EXPORT,
        "hypothesis>=6.150,<7",
        "mypy>=2.4,<3",
        "pre-commit>=4.2,<5",
        "pytest>=9,<10",
        "pytest-xdist>=3.8,<4",
        "ruff>=0.17,<0.18",
    ],
    "docs": ["furo>=2025.7,<2027", "myst-parser>=4,<6", "sphinx>=8,<10"],
}

setup(
    name="jaxnas",
    version=read_version(),
    description="Neural architecture search as pure JAX functions",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["jaxnas*", "experiments*", "benchmarks*"]),
    package_data={"jaxnas": ["py.typed"], "jaxnas.tabular": ["data/*.npz", "data/README.md"]},
    install_requires=read_requirements(),
    extras_require=EXTRAS,
    zip_safe=False,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
