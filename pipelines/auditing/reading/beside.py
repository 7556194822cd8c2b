"""Files beside an asset that belong to it: levels of detail and colliders."""

from __future__ import annotations

from pathlib import Path

from .asset_file import Part
from .read import FORMATS, read_asset_file
from .roles import base_name


def parts_beside(path: Path, ending: str) -> tuple[Part, ...]:
    """The parts of the file `X_ending` beside an asset `X` or `X_LOD0`, in any case and format; none without one.

    Args:
        path: The asset.
        ending: End of the file's name, such as "LOD1".
    """
    wanted = f"{base_name(path.stem)}_{ending}".casefold()
    for other in sorted(path.parent.iterdir()):
        if other.stem.casefold() == wanted and other.suffix.lower() in FORMATS and other.name != path.name:
            try:
                return read_asset_file(other).parts
            except (ValueError, OSError):
                return ()
    return ()
