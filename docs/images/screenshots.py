"""Make report.png and report-phone.png of a comparison's page: ``screenshots.py runs/.../compare.html``.

Needs playwright and chromium, as the tests of the page do.
"""

import argparse
import io
import os
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
BROWSER = os.environ.get("LONGTAIL_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
PARTS = ("The weights: beta explorer", "On which classes?", "What should I use?")


def keep(picture: Image.Image, name: str) -> None:
    """Save a picture of few colours small; median cut would lose those of the marks."""
    picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(HERE / name, optimize=True)


def main() -> None:
    """Take both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    address = parser.parse_args().page.resolve().as_uri()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1240, "height": 1000})
        page.goto(address)
        results = page.get_by_role("heading", name="Did it help?", level=3).last
        results.evaluate("""node => {  // the tail and the explorer stand in the other picture
            while (node.previousElementSibling.tagName !== "DL") node.previousElementSibling.remove();
            node.scrollIntoView();
        }""")
        page.wait_for_timeout(1500)
        page.evaluate("scrollTo(0, 0)")
        following = page.get_by_role("heading", name=PARTS[1], level=3).last
        clip = {"x": 0, "y": 0, "width": 1240, "height": following.bounding_box()["y"] - 20}
        keep(Image.open(io.BytesIO(page.screenshot(clip=clip, full_page=True))), "report.png")

        phone = browser.new_page(viewport={"width": 390, "height": 980}, device_scale_factor=1.25)
        phone.goto(address)
        shots = []
        for title in PARTS:
            phone.get_by_role("heading", name=title, level=3).last.evaluate("node => node.scrollIntoView()")
            phone.wait_for_timeout(1500)
            shots.append(Image.open(io.BytesIO(phone.screenshot())).convert("RGB"))
        gap, (width, height) = 12, shots[0].size
        picture = Image.new("RGB", (len(shots) * (width + gap) - gap, height), "#999999")
        for i, shot in enumerate(shots):
            picture.paste(shot, (i * (width + gap), 0))
        keep(picture, "report-phone.png")


if __name__ == "__main__":
    main()
