"""Picture of the live page for docs/: `dp_ros demo --watch` in headless Chromium. `make picture` runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

import cv2

OUT = Path(__file__).with_name("page.jpg")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--window-size=1100,1040",
    "--virtual-time-budget=4000",
)
DEADLINE_S = 180.0


def main() -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("picture: no Chromium here; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        outputs = ["--json", f"{folder}/demo.json", "--video", f"{folder}/demo.mp4"]
        command = [sys.executable, "-m", "dp_ros.cli", "demo", "--watch", "--episodes", "20", *outputs]
        demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert demo.stdout is not None
            address = next(line.split()[1] for line in demo.stdout if line.startswith("page: "))
            wait_for_an_episode(address)
            shot = Path(folder) / "page.png"
            subprocess.run(
                [browser, *OPTIONS, f"--screenshot={shot}", address], check=True, capture_output=True
            )
            cv2.imwrite(str(OUT), cv2.imread(str(shot)), (cv2.IMWRITE_JPEG_QUALITY, 80))
        finally:
            demo.send_signal(2)
            demo.wait()
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB")


def wait_for_an_episode(address: str) -> None:
    """Until one episode is over and the next has gone some way."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        with urlopen(f"{address}/state", timeout=20) as answer:
            state = json.load(answer)
        if state["episodes"] and len(state["measured_m"]) > 25:
            return
        time.sleep(0.1)
    sys.exit(f"picture: no episode within {DEADLINE_S:.0f} s")


if __name__ == "__main__":
    main()
