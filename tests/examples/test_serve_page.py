"""The models of the page: the commands of docs/serving.md ask them, and a browser shows them at work."""

import json
import shutil
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from code_blocks import code_blocks
from served import EXAMPLES, Server

sys.path.insert(0, str(EXAMPLES))


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A server of the models that the page shows, hardly trained."""
    pytest.importorskip("fastapi", reason="the server needs pip install keras_seq[serve]")
    from serving import demo

    folder = tmp_path_factory.mktemp("shown")
    assert demo.train(folder, quick=True) == sorted(folder.iterdir(), key=lambda p: p.stat().st_mtime)
    found = Server(folder)
    yield found
    found.close()


def test_the_commands_of_the_guide(shown, tmp_path):
    curl = shutil.which("curl")
    if curl is None or " --json " not in subprocess.run([curl, "--help", "all"], capture_output=True, text=True).stdout:
        pytest.skip("the commands of the guide need curl 7.82 or newer")
    said = []
    for block in code_blocks((EXAMPLES.parent / "docs" / "serving.md").read_text(), "sh"):
        block = block.replace("127.0.0.1:8000", f"127.0.0.1:{shown.port}").replace("curl -s", "curl --fail -s")
        block = ["sh", "-ec", block.replace("\ncurl", "\necho; curl")]
        found = subprocess.run(block, capture_output=True, text=True, cwd=tmp_path)
        assert found.returncode == 0, found
        said.append(found.stdout)
    about, texts, picture, stream = said
    assert json.loads(about.splitlines()[0])["models"].keys() == {"caption", "predict", "read", "stream", "write"}
    assert len(json.loads(about.splitlines()[-1])["output"]) == 3
    assert texts.count('"piece"') == 20
    assert "weights" in json.loads(texts.splitlines()[-1])
    described = json.loads(picture)
    assert len(described["weights"]) == len(described["words"])
    assert [len(json.loads(line)["outputs"]) for line in stream.splitlines() if line] == [2, 1]


def test_scenes_are_drawn_and_what_is_no_picture_is_refused(shown):
    status, scene = shown.ask("GET", "/scene?seed=3")
    assert status == 200
    assert scene == shown.ask("GET", "/scene?seed=3")[1] != shown.ask("GET", "/scene?seed=4")[1]
    assert len(scene["texts"]) == 5
    rows = scene["picture"]
    assert np.shape(rows) == (48, 48, 3)
    refused = {
        "picture: expected shape (48, 48, 3), got (47, 48, 3)": rows[1:],
        "picture: expected shape (48, 48, 3), got (48, 48, 1)": np.zeros((48, 48, 1), int).tolist(),
        "picture: expected numbers of shape (48, 48, 3), got []": [],
        "picture: expected numbers of shape (48, 48, 3), got [[1, 2], [3]]": [[1, 2], [3]],
        "picture: expected finite numbers that uint8 holds, got others": np.full((48, 48, 3), 256).tolist(),
        "body.picture: Input should be a valid list": "a picture",
    }
    for reason, given in refused.items():
        assert shown.ask("POST", "/caption", {"picture": given}) == (422, {"error": reason})
    assert shown.ask("GET", "/scene?seed=-1")[0] == 422
    assert shown.ask("POST", "/caption", b" " * (1 << 21))[0] == 413
    assert shown.ask("POST", "/caption", {"picture": rows})[0] == 200


# -- the page, in a browser --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium: one that is installed, else playwright's own."""
    api = pytest.importorskip("playwright.sync_api", reason="the page needs pip install playwright: tox run -e page")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"the page needs Chromium on PATH, or `playwright install chromium`: {error!s:.200}")
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """A new page, and what it and the browser complain of, nothing unless a test says so."""
    page, said = browser.new_page(), []
    page.set_default_timeout(60_000)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page, said
    page.close()
    assert said == []


def wait_until(page, element, test):
    """Until this is true of the element `e`."""
    page.wait_for_function(f"(e => {test})(document.querySelector({element!r}))")


def test_the_page_shows_the_models_at_work(opened, shown):
    page, said = opened
    with page.expect_response("**/streams") as begun:
        page.goto(f"http://127.0.0.1:{shown.port}/")

    page.fill("#write [name=length]", "25")
    page.click("#write button >> nth=0")
    wait_until(page, "#write .status", "e.textContent.startsWith('25 characters')")
    assert page.inner_text("#write pre").startswith("ROMEO:")

    wait_until(page, "#read table", "e.querySelectorAll('td').length > 0")
    marked = page.eval_on_selector_all("#read tr", "rows => rows.map(r => r.querySelectorAll('td.most').length)")
    assert marked[0] == 0
    assert all(count >= 1 for count in marked[1:])

    drawn = "e.toDataURL()"
    before = page.eval_on_selector("#stream canvas", f"e => {drawn}")
    page.click("#stream button >> nth=0")
    wait_until(page, "#stream canvas", f"{drawn} !== {before!r}")

    assert said == []
    page.fill("#write [name=prompt]", "☃")
    page.click("#write button >> nth=0")
    wait_until(page, "#write .error", "e.textContent.includes('vocabulary')")
    assert "422" in said.pop()

    path = f"/streams/{begun.value.json()['stream']}"
    page.goto("about:blank")
    for _ in range(1200):  # whoever leaves the page ends its stream
        if shown.ask("POST", path, {"steps": [[0.0]]})[0] == 404:
            break
        time.sleep(0.1)
    else:
        raise AssertionError("the stream is still open")


def test_the_page_draws_a_scene_and_says_word_by_word_what_it_is_and_where_it_looked(opened, shown):
    page, _ = opened
    with page.expect_response("**/scene") as scene, page.expect_response("**/caption") as answer:
        page.goto(f"http://127.0.0.1:{shown.port}/")
    scene, answer = scene.value.json(), answer.value.json()
    wait_until(page, "#caption .words", f"{len(answer['words'])} === e.children.length")
    wait_until(page, "#caption .status", "e.textContent !== ''")
    assert page.inner_text("#caption .status").startswith(f"The model says: {answer['text']}.")
    assert page.locator("#caption figcaption").all_inner_texts() == answer["words"]

    pixels = "e => [...e.getContext('2d').getImageData(0, 0, e.width, e.height).data]"
    shown_scene = np.reshape(page.eval_on_selector("#caption .scene", pixels), (48, 48, 4))
    np.testing.assert_array_equal(shown_scene[..., :3], scene["picture"])
    for canvas, weights in zip(page.locator("#caption figure canvas").all(), answer["weights"], strict=True):
        light = np.reshape(canvas.evaluate(pixels), (96, 96, 4))[..., :3].mean(axis=-1)
        share = light / np.kron(np.mean(scene["picture"], axis=-1), np.ones((2, 2)))  # of the picture's own light
        share = share.reshape(6, 16, 6, 16)[:, 7:9, :, 7:9].mean(axis=(1, 3))  # in the middle of each field
        expected = 1 - 180 / 255 * (1 - np.array(weights) / np.max(weights))
        np.testing.assert_allclose(share, expected, atol=0.1)

    before = page.inner_text("#caption .status")
    page.click("#caption button")
    wait_until(page, "#caption .status", f"e.textContent !== '' && e.textContent !== {before!r}")


def test_the_page_describes_a_picture_of_the_visitor(opened, shown, tmp_path):
    page, _ = opened

    def other(route):
        """What a server says whose pictures are no drawn scenes."""
        about = route.fetch().json()
        about["models"]["caption"]["scenes"] = False
        route.fulfill(json=about)

    page.route("**/models", other)
    page.goto(f"http://127.0.0.1:{shown.port}/")
    wait_until(page, "#caption .pair", "e.hidden")
    image = np.zeros((96, 96, 3), "uint8")
    image[:, 48:] = 200, 100, 0
    keras.utils.save_img(tmp_path / "picture.png", image, scale=False)
    page.set_input_files("#caption [type=file]", tmp_path / "picture.png")
    with page.expect_request("**/caption") as asked:
        page.click("#caption button")
    sent = np.array(asked.value.post_data_json["picture"])
    assert sent.shape == (48, 48, 3)
    np.testing.assert_array_equal(sent[:, ::47], [[[0, 0, 0], [200, 100, 0]]] * 48)
    wait_until(page, "#caption .status", "e.textContent.startsWith('The model says')")
