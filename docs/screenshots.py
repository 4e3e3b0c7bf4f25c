"""Takes the pictures of docs/images in headless Chromium: `make docs-screenshots`, beside a stack that runs.

With `--work` it first does what the pictures show: some nights' backups, and restore drills for their curves.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

IMAGES = Path(__file__).parent / "images"
JOBS = ("nightly_maintenance", "full_backup", *["restore_drills"] * 3)
WIDTH, HEIGHT = 1400, 1150
START_SECONDS = 60.0
# Until the page says this, it is not drawn; then for as long, so that curves and layout have come to rest.
DRAWN_SECONDS = 60.0
REST_SECONDS = 3.0


@dataclass(frozen=True)
class Picture:
    """Clicks on texts, one after the other; `says` is then on the page, and the first of it is brought into sight."""

    name: str
    path: str
    says: tuple[str, ...]
    clicks: tuple[str, ...] = ()


PICTURES = (
    Picture(
        "asset-graph", "/locations/depot_ops.definitions/asset-groups/backup/lineage", ("restore_drill", "Materialized")
    ),
    Picture("check-results", "/assets/logical_backup?view=checks", ("checksum", "sha256", "Passed")),
    Picture("restore-drill-plots", "/assets/restore_drill", ("rto_seconds", "rpo_seconds"), ("Plots",)),
    Picture("replica-lag-plots", "/assets/replica/standby", ("lag_bytes", "lag_seconds"), ("Plots",)),
)


@dataclass
class Page:
    """One page of a browser, driven by the Chrome DevTools protocol."""

    connection: ClientConnection
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self.numbers)
        self.connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := json.loads(self.connection.recv(timeout=DRAWN_SECONDS))).get("id") != number:
            pass  # events, which nobody waits for
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        found: dict[str, Any] = answer["result"]
        return found

    def evaluate(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait_for(self, expression: str, what: str) -> None:
        deadline = time.monotonic() + DRAWN_SECONDS
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not appear. The page says:\n{self.evaluate('document.body.innerText')}")
            time.sleep(0.2)

    def click(self, text: str) -> None:
        """With the mouse: the graph listens to nothing less."""
        time.sleep(REST_SECONDS)  # the graph moves until it has found its place
        place = self.evaluate(f"(({_named(text)}).getBoundingClientRect()).toJSON()")
        at = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2}
        for event in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=event, **at, button="left", clickCount=1)

    def take(self, picture: Picture, url: str) -> Path:
        self.ask("Page.navigate", url=f"{url}{picture.path}")
        for text in picture.clicks:
            self.wait_for(f"!!({_named(text)})", text)
            self.click(text)
        for text in picture.says:
            self.wait_for(f"!!({_named(text)})", text)
        if picture.clicks == ("Plots",):
            self.evaluate(f"({_named(picture.says[0])}).scrollIntoView({{block: 'center'}})")
        time.sleep(REST_SECONDS)
        shown = self.ask("Page.captureScreenshot", format="png")
        file = IMAGES / f"{picture.name}.png"
        file.write_bytes(base64.b64decode(shown["data"]))
        return file


def _named(text: str) -> str:
    """The last of the innermost elements that say just this; a name in a list comes before that in the picture."""
    innermost = "[...document.querySelectorAll('*')].filter(one => !one.children.length)"
    return f"{innermost}.filter(one => one.textContent.trim() == {json.dumps(text)}).at(-1)"


@contextmanager
def browser(executable: str) -> Iterator[Page]:
    with tempfile.TemporaryDirectory() as profile:
        command = [executable, "--headless=new", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command += [f"--window-size={WIDTH},{HEIGHT}", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
        if os.geteuid() == 0:  # its sandbox does not work for root; it only ever sees our own pages
            command.append("--no-sandbox")
        process = subprocess.Popen([*command, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_page_address(Path(profile)), max_size=None) as connection:
                page = Page(connection)
                yield page
                page.ask("Browser.close")  # killed, it would still write to its profile
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()


def _page_address(profile: Path) -> str:
    told = profile / "DevToolsActivePort"
    deadline = time.monotonic() + START_SECONDS
    while not (told.exists() and told.read_text().count("/")):  # the port, then the browser's path
        if time.monotonic() > deadline:
            raise RuntimeError("the browser did not start")
        time.sleep(0.1)
    with urllib.request.urlopen(f"http://127.0.0.1:{told.read_text().split()[0]}/json/list") as answer:
        pages = json.load(answer)
    address: str = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
    return address


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--dagster-url", default=os.environ.get("DAGSTER_URL", "http://127.0.0.1:3000"))
    arguments.add_argument("--chromium", default="chromium")
    arguments.add_argument("--work", action="store_true", help="first do what the pictures show; takes minutes")
    arguments.add_argument("names", nargs="*", help="only these pictures")
    given = arguments.parse_args()
    for job in JOBS if given.work else ():
        subprocess.run([Path(sys.executable).parent / "depot-ops", "run", job], check=True)
    IMAGES.mkdir(exist_ok=True)
    with browser(given.chromium) as page:
        for picture in PICTURES:
            if not given.names or picture.name in given.names:
                file = page.take(picture, given.dagster_url)
                sys.stdout.write(f"{file}: {file.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
