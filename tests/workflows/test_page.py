"""The page in a real browser: it says what the judge says, works without a mouse, asks for nothing."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from bnbenv.judge.check import Combination, check
from bnbenv.machine.target import Gpu, Target
from bnbenv.matrix.load import load
from bnbenv.units import ComputeCapability, DriverVersion
from bnbenv.workflows.choose import JUDGED
from bnbenv.workflows.page import PARTS, SYSTEMS, Start, make_page
from support.browser import Browser, missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bnbenv.matrix.matrix import Matrix

CASES = 600
MIXED = "#system=linux-x86_64&driver=570&gpu=RTX+5090&gpu=Tesla+P40"
# Asks the page's own functions, for a list of machines and cells, for letter and first cause.
ASK = """
return arguments[0].map(([system, kind, driver, devices, torch, bnb]) => {
  state.system = system;
  state.driver = driver;
  state.gpus = devices.map((name) => ({ name, kind: name }));
  const facet = systemOf().kinds[kind];
  const build = facet.builds.find((one) => `${one.version}+${one.build}` === torch);
  const wheel = facet.wheels.findIndex((one) => one.version === bnb);
  const at = machine(facet);
  const found = findings(facet, build, wheel, at);
  const library = takenOf(facet, build, wheel, at)?.library ?? null;
  return [verdict(facet, build, wheel, at), found.length ? found[0].code : "", library];
});
"""


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    return load(*dict.fromkeys([*JUDGED, *PARTS]))


@pytest.fixture(scope="module")
def page(matrix: Matrix, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "matrix.html"
    file.write_text(make_page(matrix, Start.usual()), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if why := missing():
        pytest.skip(why)
    with Browser() as running:
        yield running


def test_the_page_is_one_file_that_names_no_other(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    shell = text.split('<script type="application/json"')[0]
    assert "src=" not in shell.replace("default-src", "").replace("-src", "")
    assert "@import" not in shell
    assert "url(" not in shell
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert [system["id"] for system in data["systems"]] == [f"{os}-{arch}" for os, arch, *_ in SYSTEMS]


@pytest.mark.slow
def test_it_says_what_the_judge_says(browser: Browser, page: Path, matrix: Matrix) -> None:
    data = json.loads(page.read_text(encoding="utf-8").split('id="data">')[1].split("</script>")[0])
    chance = random.Random(1)
    questions: list[list[Any]] = []
    wanted: list[tuple[str, str, str | None, bool]] = []
    for _ in range(CASES):
        os, arch, _, kinds = chance.choice(SYSTEMS)
        kind = chance.choice(kinds)
        facet = next(one for one in data["systems"] if one["id"] == f"{os}-{arch}")["kinds"][kind]
        if not facet["wheels"]:
            continue
        devices = []
        if facet["devices"] != [""]:
            devices = chance.sample(facet["devices"], chance.randint(1, min(3, len(facet["devices"]))))
        driver = chance.choice(facet["drivers"]) if kind == "cuda" else ""
        build = chance.choice(facet["builds"])
        torch, bnb = f"{build['version']}+{build['build']}", chance.choice(facet["wheels"])["version"]
        questions.append([f"{os}-{arch}", kind, driver, devices, torch, bnb])
        target = Target(
            name="a",
            os=os,
            arch=arch,
            accelerator=kind,
            driver=DriverVersion(driver) if driver else None,
            gpus=tuple(
                Gpu(
                    name=name,
                    compute_capability=ComputeCapability.parse(name) if kind == "cuda" else None,
                    gfx=name if kind == "rocm" else None,
                )
                for name in devices
            ),
        )
        judged = check(Combination(torch=torch, bitsandbytes=bnb), target, matrix).judgement
        told = [one for one in judged.findings if one.severity != "info" or one.undecided]
        letter = {True: "a" if told else "w", None: "u", False: "f"}[judged.works]
        wanted.append((letter, told[0].code if told else "", judged.library, bool(build["taken"])))
    browser.open(page)
    answers = browser.run(ASK, questions)
    for question, answer, (letter, code, library, fits) in zip(questions, answers, wanted, strict=True):
        assert answer[0] == letter, question
        if fits:  # of a build for another kind of accelerator, that alone is told
            assert answer[1:] == [code, library], question
    assert {letter for letter, *_ in wanted} == {"w", "f", "u"} | {one for one, *_ in wanted if one == "a"}


def test_blackwell_beside_pascal_is_answered_rightly(browser: Browser, page: Path) -> None:
    browser.open(page, MIXED)
    told = browser.text("#answer")
    assert told.startswith("Nothing works for NVIDIA GeForce RTX 5090 + Tesla P40.")
    assert "NVIDIA GeForce RTX 5090 alone has" in told
    assert "up to torch 2.11.0 (cu128)" in told
    assert "up to torch 2.14.1 (cu126)" in told
    letters = browser.run(
        "return [...new Set([...document.querySelectorAll('td')].map((cell) => cell.className))]"
    )
    assert letters == ["f"]


def test_a_gpu_of_a_link_that_is_not_known_is_told(browser: Browser, page: Path) -> None:
    browser.open(page, "#system=linux-x86_64&driver=570&gpu=RTX+5900&gpu=<b>x</b>&gpu=8.9")
    assert "Left out" in browser.text("#answer")
    assert browser.text("#answer").endswith("RTX 5900, <b>x</b>.")
    browser.open(page, MIXED)
    assert "Left out" not in browser.text("#answer")


def test_a_fragment_leads_to_its_cell(browser: Browser, page: Path) -> None:
    browser.open(page, f"{MIXED}&torch=2.9.1%2Bcu128&bnb=0.48.2")
    told = browser.text("#detail")
    assert told.startswith("torch 2.9.1 (cu128) with bitsandbytes 0.48.2")
    assert "holds no kernel for Tesla P40 (6.1)" in told
    assert "sha256" in told
    assert browser.run("return document.querySelectorAll('td[aria-selected=true]').length") == 1
    link = browser.run("return new URL(document.querySelector('#detail .link a').href).hash")
    browser.open(page, link)
    assert browser.text("#detail") == told


def test_it_can_be_used_with_the_keyboard_alone(browser: Browser, page: Path) -> None:
    browser.open(page, "#system=linux-x86_64&driver=550")
    browser.run("document.querySelector('#gpu').focus()")
    browser.press(*"rtx 4090", "\ue007")
    assert browser.run("return state.gpus.map((gpu) => gpu.kind)") == ["8.9"]
    assert browser.run("return [...document.querySelectorAll('td[tabindex=\"0\"]')].length") == 1
    browser.run("document.querySelector('td[tabindex=\"0\"]').focus()")
    browser.press("\ue015", "\ue015", "\ue014", "\ue007")  # down, down, right, Enter
    place = "[document.activeElement.cellIndex, document.activeElement.parentElement.rowIndex]"
    assert browser.run(f"return {place}") == [2, 3]
    assert browser.text("#detail").startswith("torch ")
    browser.press("\ue010")  # End
    last = "return document.activeElement.nextElementSibling === null"
    assert browser.run(last)
    browser.run("document.querySelector('#gpu').focus()")
    browser.press("\ue003")  # Backspace takes the last GPU away
    assert browser.run("return state.gpus") == []


def test_a_screen_reader_is_told_names_and_words(browser: Browser, page: Path) -> None:
    browser.open(page, MIXED)
    assert browser.accessible("#system") == ("combobox", "System")
    assert browser.accessible("#gpu")[0] == "combobox"
    assert browser.accessible("table") == ("grid", "torch builds by bitsandbytes releases")
    role, name = browser.accessible("tbody td")
    assert (role, name) == ("gridcell", "does not work")
    assert browser.accessible("#chips button")[1] == "remove NVIDIA GeForce RTX 5090"
    assert browser.run("return document.documentElement.lang") == "en"


def test_the_filter_and_what_works_narrow_the_table(browser: Browser, page: Path) -> None:
    browser.open(page, "#system=linux-x86_64&driver=580&gpu=8.9")
    rows = "return document.querySelectorAll('tbody tr').length"
    everything = browser.run(rows)
    browser.run("set({ filter: 'cu126' })")
    assert 0 < browser.run(rows) < everything
    browser.run("set({ filter: '0.48 2.9' })")
    assert browser.run("return shown.columns.map((at) => facets().wheels[at].version)") == ["0.48.2"]
    browser.run("set({ filter: 'nothing-like-it' })")
    assert browser.text("#empty") == "Nothing matches the filter."
    browser.run("set({ filter: '', works: true })")
    assert browser.run(
        "return [...document.querySelectorAll('tbody tr')].every((row) => row.querySelector('.w, .a'))"
    )


def test_it_asks_nothing_of_the_network_and_complains_of_nothing(browser: Browser, page: Path) -> None:
    browser.requests()
    browser.open(page, MIXED)
    assert [one for one in browser.requests() if not one.startswith(("file:", "about:", "data:"))] == []
    assert browser.complaints() == []


@pytest.mark.parametrize(("dark", "width"), [(False, 1440), (True, 1440), (False, 420)])
def test_nothing_is_wider_than_the_window_and_every_text_can_be_read(
    dark: bool,
    width: int,
    page: Path,
) -> None:
    if why := missing():
        pytest.skip(why)
    with Browser(width=width, dark=dark) as browser:
        browser.open(page, f"{MIXED}&torch=2.9.1%2Bcu128&bnb=0.48.2")
        assert browser.run("return document.documentElement.dataset.theme") == ("dark" if dark else "light")
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        pairs: Any = browser.run(CONTRAST)
        assert pairs
        assert all(ratio >= 4.5 for _, ratio in pairs), pairs


# The contrast of text with what is behind it, by WCAG's formula, for the kinds of text that the page has.
CONTRAST = """
const numbers = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = (text) => {
  const linear = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = numbers(text).map((one) => linear(one / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (!/, 0\\)$|transparent/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
return [
  "h1", ".sub", ".field label", "td", "tbody th .build", "thead th", ".verdict", ".why p", ".why small",
  "dt", "footer p", ".answer p", ".chip small",
].map((name) => {
  const node = document.querySelector(name);
  const pair = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
  return [name, (pair[0] + 0.05) / (pair[1] + 0.05)];
});
"""
