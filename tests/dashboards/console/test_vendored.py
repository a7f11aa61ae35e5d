"""What comes from others lies in the repository as it was published, and nothing is loaded from anywhere else."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from dashboards.console import web

VENDOR = web.STATIC / "vendor"
TEMPLATES = Path(web.__file__).parent / "templates"
OURS = [*TEMPLATES.rglob("*.*"), *(path for path in web.STATIC.glob("*.*"))]


def test_every_vendored_file_has_its_hash_and_every_hash_its_file() -> None:
    stated = {name: digest for one in json.loads((VENDOR / "vendored.json").read_text()) for name, digest in one["files"].items()}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.iterdir() if path.name != "vendored.json"}

    assert found == stated


def test_every_vendored_package_states_its_licence_and_brings_its_text() -> None:
    for one in json.loads((VENDOR / "vendored.json").read_text()):
        assert one["licence"] in {"0BSD", "MIT", "OFL-1.1"}
        assert any(name.endswith("LICENSE.txt") for name in one["files"])


def test_htmx_stays_on_its_second_major_version() -> None:
    versions = {one["package"]: one["version"] for one in json.loads((VENDOR / "vendored.json").read_text())}

    assert versions["htmx.org"].startswith("2.")


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_our_files_name_no_other_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")

    assert re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text) is None


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.name)
def test_templates_hold_nothing_inline_and_switch_no_escaping_off(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert re.search(r"<style|\sstyle\s*=|\son[a-z]+=|javascript:", text) is None
    assert re.search(r"<script(?![^>]*\ssrc=)", text) is None
    assert "|safe" not in text.replace(" ", "")
    assert "autoescape" not in text
    assert "hx-on" not in text


def test_every_form_that_changes_something_carries_a_token() -> None:
    for path in TEMPLATES.rglob("*.html"):
        for form in re.findall(r'<form[^>]*method="post".*?</form>', path.read_text(encoding="utf-8"), re.DOTALL):
            assert "csrf(who)" in form or 'name="csrf"' in form or 'name="token"' in form, path.name
