"""One script per published system: `python -m experiments.<system> [PRESET] [OPTIONS]`."""
