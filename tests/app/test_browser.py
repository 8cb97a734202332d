"""The report and the playground in a real browser: Chromium, without a screen. Skipped where it or selenium is missing."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest

from tests import tiny
from tests.train.test_report import make

pytestmark = pytest.mark.slow
webdriver = pytest.importorskip("selenium.webdriver")
if not (shutil.which("chromium") and shutil.which("chromedriver")):
    pytest.skip("needs chromium and chromedriver", allow_module_level=True)
SHOTS = os.environ.get("JGEN_SCREENSHOTS", "")
"""A folder to keep screenshots in."""


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--force-device-scale-factor=1",
    ):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


def shot(browser, name):
    if SHOTS:
        browser.save_screenshot(os.path.join(SHOTS, f"{name}.png"))


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_fits_every_screen_and_scheme(browser, tmp_path, width, scheme):
    page = make(tmp_path)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    shot(browser, f"report-{width}-{scheme}")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    scales = browser.execute_script(
        "return [...document.querySelectorAll('.pixels img')].map(i => i.getBoundingClientRect().width / i.naturalWidth)"
    )
    assert scales
    assert all(scale >= 1 and abs(scale - round(scale)) < 1e-3 for scale in scales)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A playground of a tiny diffusion model and a tiny StyleGAN3, in a process of its own."""
    pytest.importorskip("gradio")
    folder, port = tmp_path_factory.mktemp("served"), "7899"
    for name in ("ddpm", "stylegan3"):
        tiny.run("-m", f"experiments.{name}", "--name", f"./{name}", *tiny.FLAGS[name], cwd=folder)
    words = [sys.executable, "-m", "jgen", "serve", "ddpm", "stylegan3", "--port", port]
    env = {**tiny.environment(), "JAX_PLATFORMS": "cpu"}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        where = f"http://127.0.0.1:{port}"
        wait(lambda: urllib.request.urlopen(where, timeout=5).status == 200, 120)
        yield where
    finally:
        process.terminate()
        process.wait(20)


def wait(done, seconds=60):
    """Until `done` answers something true; raises what it met last."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := done():
                return found
        except Exception:
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.5)


def picture(browser, tab):
    return browser.execute_script(f"return document.querySelector('#picture-{tab} img')?.src || ''")


def turn(browser, name, value):
    """Sets a control as a hand would."""
    script = """
      const box = document.querySelector('#' + arguments[0]);
      const radio = box.querySelector(`input[type=radio][value="${arguments[1]}"]`);
      if (radio) { radio.click(); return; }
      const input = box.querySelector('input[type=number]') || box.querySelector('input');
      Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(input, arguments[1]);
      for (const kind of ['input', 'change', 'blur']) input.dispatchEvent(new Event(kind, {bubbles: true}));
    """
    browser.execute_script(script, name, str(value))


def changes(browser, tab, name, value):
    """Turns a control and waits for another picture."""
    before = picture(browser, tab)
    turn(browser, f"{name}-{tab}", value)
    wait(lambda: picture(browser, tab) not in ("", before))


def test_every_control_of_the_playground_changes_the_picture(browser, address, tmp_path):
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(1280, 1000)
    browser.get(f"{address}/?run=0&show=samples&seed=5&num=4&steps=2")
    wait(lambda: picture(browser, 0))
    for name, value in {"seed": 6, "num": 2, "steps": 3, "eta": 0.5, "show": "denoising"}.items():
        changes(browser, 0, name, value)
    assert "show=denoising" in browser.current_url
    assert "seed=6" in browser.current_url
    shot(browser, "playground-diffusion")
    turn(browser, "show-0", "edit")
    (tmp_path / "bad.png").write_text("this is no image")
    browser.find_element("css selector", "#file-0 input[type=file]").send_keys(str(tmp_path / "bad.png"))
    wait(lambda: "bad.png" in browser.find_element("css selector", "#message-0").text)
    shot(browser, "playground-bad-upload")
    browser.get(f"{address}/?run=1&num=4")
    wait(lambda: picture(browser, 1))
    for name, value in {"seed": 3, "psi": 0.5, "show": "mixing", "rows_from": 0}.items():
        changes(browser, 1, name, value)
    changes(browser, 1, "show", "directions")
    changes(browser, 1, "amount", -3)
    changes(browser, 1, "show", "walk")
    changes(browser, 1, "show", "transform")
    changes(browser, 1, "move_x", 0.3)
    shot(browser, "playground-styles")
