"""A regular package, so that it is found before an installed one of this name. See ``build.py``."""
