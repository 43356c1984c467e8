"""A new environment to start from: writes the files in ``templates/`` under a name of one's own."""

from __future__ import annotations

import keyword
from pathlib import Path

TEMPLATES = Path(__file__).with_name("templates")


def new_env(name: str, folder: Path) -> list[Path]:
    """Write NAME.pyx, NAME.toml and test_NAME.py into a folder; return their paths.

    Raises ValueError for a name that cannot be a module's, and FileExistsError before anything is
    written if one of the files is there already.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise ValueError(f"{name!r} cannot be the name of an environment: expected a lower-case "
                         "Python identifier such as my_game")
    texts = {folder / template.name.removesuffix(".in").replace("env", name, 1): template
             for template in sorted(TEMPLATES.glob("*.in"))}
    for path in texts:
        if path.exists():
            raise FileExistsError(f"{path} is there already; nothing was written")
    kind = "".join(part.capitalize() for part in name.split("_"))
    for path, template in texts.items():
        text = template.read_text(encoding="utf-8")
        path.write_text(text.replace("@NAME@", name).replace("@CLASS@", kind), encoding="utf-8")
    return list(texts)
