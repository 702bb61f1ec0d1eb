"""The models of the page: the commands of docs/serving.md ask them, and a browser shows them at work."""

import json
import shutil
import subprocess
import sys

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
    found.process.kill()
    found.process.wait()


def test_the_commands_of_the_guide(shown):
    curl = shutil.which("curl")
    if curl is None or " --json " not in subprocess.run([curl, "--help", "all"], capture_output=True, text=True).stdout:
        pytest.skip("the commands of the guide need curl 7.82 or newer")
    said = []
    for block in code_blocks((EXAMPLES.parent / "docs" / "serving.md").read_text(), "sh"):
        block = block.replace("127.0.0.1:8000", f"127.0.0.1:{shown.port}").replace("curl -s", "curl --fail -s")
        found = subprocess.run(["sh", "-ec", block.replace("\ncurl", "\necho; curl")], capture_output=True, text=True)
        assert found.returncode == 0, found
        said.append(found.stdout)
    about, texts, stream = said
    assert json.loads(about.splitlines()[0])["models"].keys() == {"predict", "read", "stream", "write"}
    assert len(json.loads(about.splitlines()[-1])["output"]) == 3
    assert texts.count('"piece"') == 20
    assert "weights" in json.loads(texts.splitlines()[-1])
    assert [len(json.loads(line)["outputs"]) for line in stream.splitlines() if line] == [2, 1]


def test_the_page_shows_the_models_at_work(shown):
    api = pytest.importorskip("playwright.sync_api", reason="the page is tried where playwright is installed")
    with api.sync_playwright() as playwright:
        try:
            path = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no Chromium that playwright can start: {error!s:.200}")
        page, said = browser.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"http://127.0.0.1:{shown.port}/")

        page.fill("#write [name=length]", "25")
        page.click("#write button >> nth=0")
        page.wait_for_function("document.querySelector('#write .status').textContent.startsWith('25 characters')")
        assert page.inner_text("#write pre").startswith("ROMEO:")

        page.wait_for_function("document.querySelectorAll('#read td').length > 0")
        marked = page.eval_on_selector_all("#read tr", "rows => rows.map(r => r.querySelectorAll('td.most').length)")
        assert marked[0] == 0
        assert all(count >= 1 for count in marked[1:])

        drawn = "document.querySelector('canvas').toDataURL()"
        before = page.evaluate(drawn)
        page.click("#stream button >> nth=0")
        page.wait_for_function(f"before => {drawn} !== before", arg=before)
        assert said == []

        page.fill("#write [name=prompt]", "☃")
        page.click("#write button >> nth=0")
        page.wait_for_function("document.querySelector('#write .error').textContent.includes('vocabulary')")
        browser.close()
