"""A picture of a page, taken by headless Chromium, for a README or a slide."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

from interpose.errors import InterposeError

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def take(
    page: Path | str,
    picture: Path | str,
    *,
    size: tuple[int, int] = (1200, 1600),
    theme: Literal["light", "dark"] = "light",
    scale: float = 1.0,
) -> Path:
    """Open a page in Chromium and save what it shows.

    Args:
        page: A report.
        picture: Where the PNG goes.
        size: Width and height of the window, in CSS pixels; what lies below is not in the picture.
        theme: Which colours.
        scale: Pixels of the picture for each CSS pixel.

    Returns:
        The picture's path.

    Raises:
        InterposeError: There is no Chromium, no such page, or Chromium made no picture.
    """
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        raise InterposeError(f"A picture needs Chromium, but none of {', '.join(_NAMES)} is installed.")
    page, picture = Path(page).resolve(), Path(picture).resolve()
    if not page.is_file():
        raise InterposeError(f"There is no page at {page}.")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            f"--force-device-scale-factor={scale:g}",
            f"--window-size={size[0]},{size[1]}",
            f"--screenshot={picture}",
            f"{page.as_uri()}?theme={theme}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode or not picture.is_file():
        raise InterposeError(f"Chromium made no picture of {page}: {done.stderr.strip()[-400:]}")
    return picture
