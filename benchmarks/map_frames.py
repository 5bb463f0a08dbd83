"""How many frames per second the dashboard's map draws while it is dragged.

    python -m benchmarks.map_frames [--sites 10000] [--seconds 5] [--times 3] [--json]

A headless browser drags the map in circles with the mouse, while two thousand of the sites change
their load every second. A frame counts when the browser requests the next one.
"""

from __future__ import annotations

import argparse
import statistics
import threading
from typing import Final

import msgspec
from tests.scenes.browser import User, browser
from tests.scenes.large_map import LargeMap, large_map

CHANGED: Final = 2000
"""Sites of which the load changes each second."""

_DRAG: Final = """async (seconds) => {
  const canvas = document.querySelector(".map .sigma-mouse");
  const { left, top, width, height } = canvas.getBoundingClientRect();
  const send = (to, type, x, y) =>
    to.dispatchEvent(new MouseEvent(type, { clientX: x, clientY: y, bubbles: true, button: 0 }));
  const [x, y] = [left + width / 2, top + height / 2];
  send(canvas, "mousedown", x, y);
  const began = performance.now();
  let frames = 0, longest = 0, last = began;
  for (let now = began; now - began < 1000 * seconds; ) {
    const angle = (now - began) / 300;
    send(document, "mousemove", x + 60 * Math.cos(angle), y + 60 * Math.sin(angle));
    await new Promise(requestAnimationFrame);
    now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    frames += 1;
  }
  send(document, "mouseup", x, y);
  return [frames / ((last - began) / 1000), longest / 1000];
}"""


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """One drag."""

    frames_per_s: float
    longest_s: float
    """Between two frames."""


def drag(network: LargeMap, user: User, seconds: float) -> Drawn:
    """Drag the map while the network changes."""
    ended = threading.Event()

    def change() -> None:
        while not ended.wait(1.0):
            network.change(loads=CHANGED)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        frames, longest = user.page.evaluate(_DRAG, seconds)
    finally:
        ended.set()
        changing.join()
    return Drawn(frames_per_s=round(frames, 1), longest_s=round(longest, 3))


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=10_000, help="number of sites")
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of each measurement")
    parser.add_argument("--times", type=int, default=3, help="number of measurements")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with large_map(options.sites, links_each=4) as network, browser() as chromium:
        user = User(chromium.new_page(), network.url)
        user.open("/map")
        user.sees(f"{options.sites} sites")
        drawn = [drag(network, user, options.seconds) for _ in range(options.times)]
    if options.json:
        print(msgspec.json.encode(drawn).decode())
        return
    for one in drawn:
        print(
            f"{one.frames_per_s:6.1f} frames/s, {1000 * one.longest_s:5.0f} ms at most between two"
        )
    print(f"{statistics.median(one.frames_per_s for one in drawn):6.1f} frames/s in the median")


if __name__ == "__main__":
    main()
