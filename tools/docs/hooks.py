"""MkDocs hook: adds the config reference, which is generated and never written to the tree."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# MkDocs loads a hook by its path: the checkout is not on the import path then.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tools.docs.config_reference import PROTOS, read_schema, render


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lets `mkdocs serve` rebuild when the schema changes."""
    config.watch.append(str(PROTOS))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds reference/config.md."""
    files.append(File.generated(config, "reference/config.md", content=render(read_schema())))
    return files
