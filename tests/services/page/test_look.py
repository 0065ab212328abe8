"""How the page looks and is used: light, dark and narrow, by keyboard alone, while the service is away, and empty."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from cluster.launch import lease_path
from tests.services.page.conftest import NARROW
from tests.services.page.served import Served, served
from trainers.lease import Lease
from trainers.runlog import RunLog

pytestmark = pytest.mark.slow
CONTRAST = 4.5
OVERFLOW = """() => [...document.querySelectorAll('body *')]
    .filter((e) => !e.closest('.scroll, .unseen, .skip, pre, svg') && e.getBoundingClientRect().right > innerWidth + 1)
    .map((e) => `${e.tagName}.${e.className}`)"""
FAINT = Path(__file__).with_name("faint.js").read_text()


@pytest.fixture(scope="module")
def views(evaluations) -> list[str]:
    first, second = (evaluations[name]["id"] for name in ("demo-sft@step-000012", "demo-ppo@step-000030"))
    return [
        "#/runs", "#/run/demo", "#/checkpoints", "#/evaluations", f"#/evaluation/{second}", "#/play",
        f"#/evaluation/{second}/general_points/id/1", f"#/compare?ids={first},{second}", "#/nowhere",
    ]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_readable_and_none_is_wider_than_a_phone(service: Served, views, open_tab, scheme: str):
    tab = open_tab(service.url, service.token, viewport=NARROW, color_scheme=scheme)
    for view in views:
        tab.go(view)
        tab.page.wait_for_load_state("networkidle")
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], (
            view,
            tab.page.evaluate(OVERFLOW),
        )
        assert tab.page.evaluate(FAINT, CONTRAST) == [], view
        assert tab.page.evaluate("document.querySelectorAll('main h1').length") == 1, view
    dark = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.page.get_by_role("button", name="Switch to").click()
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    tab.page.reload()
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


def test_a_run_shows_its_curves_with_intervals(service: Served, evaluations, open_tab):
    tab = open_tab(service.url, service.token)
    tab.go("#/runs")
    rate = evaluations["demo-ppo@step-000030"]["results"][0]["success"]
    tab.see(f"{rate['rate']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]", ".stage")
    tab.page.get_by_role("link", name="demo", exact=True).click()
    chart = tab.page.locator("figure", has_text="ID · id").first
    expect(chart.locator("polygon.band")).to_have_count(2)  # SFT and RL
    expect(chart.locator("circle.dot.ppo")).to_have_count(4)  # init and three checkpoints
    chart.locator("summary", has_text="Table").click()
    assert f"{rate['rate']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]" in chart.locator("table").inner_text()
    assert "2.7e12" in chart.locator("table").inner_text()  # FLOPs of thirty steps since init
    tab.page.get_by_role("radio", name="Steps").check()
    assert "2.7e12" not in tab.page.locator("figure", has_text="ID · id").first.locator("table").inner_text()
    tab.see("reward, mean of episodes", "figcaption")
    tab.see("worker replaced", "table")


def test_new_steps_of_a_running_run_appear_by_themselves(service: Served, open_tab):
    lease = Lease.take(str(service.store), lease_path("demo"), holder="viter train")
    try:
        tab = open_tab(service.url, service.token)
        tab.go("#/run/demo")
        tab.see("running", ".badge")
        tab.page.get_by_role("radio", name="SFT branch").check()
        loss = tab.page.locator("figcaption", has_text="loss")
        assert "0.123" not in loss.inner_text()
        log = RunLog(service.store / "demo-sft_branch")
        log.metrics(41, {"loss": 0.123}, stage="sft_branch")
        log.close()
        expect(loss).to_contain_text("loss 0.123")
    finally:
        lease.release()


def test_everything_is_reached_by_keyboard(service: Served, evaluations, open_tab):
    tab = open_tab(service.url, service.token)
    tab.go("#/runs")
    tab.see("demo", ".run")  # the heading is there before the runs are
    press = tab.page.keyboard.press
    press("Tab")
    assert tab.page.evaluate("document.activeElement.className") == "skip"
    press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "main"
    press("Tab")
    assert tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert tab.page.evaluate("document.activeElement.textContent") == "demo"
    press("Enter")  # the first run
    tab.see("In and out of distribution", "h2")
    tab.page.locator("[role=application]").first.focus()
    press("ArrowRight")
    press("ArrowRight")
    expect(tab.page.locator("#spoken")).to_contain_text("RL (PPO)")
    assert tab.page.locator(".tip:visible").count() == 1
    press("Escape")
    assert tab.page.locator(".tip:visible").count() == 0
    tab.go(f"#/evaluation/{evaluations['demo-ppo@step-000030']['id']}")
    tab.page.locator("ol.episodes summary").first.focus()
    press("Enter")
    tab.page.locator("ol.episodes .turn").first.wait_for()
    tab.page.locator("#token").focus()
    press("Enter")
    tab.page.locator("dialog").wait_for()
    press("Escape")
    tab.page.locator("dialog").wait_for(state="detached")


def test_a_service_that_is_away_is_told_and_waited_for(service: Served, open_tab):
    tab = open_tab(service.url, service.token)
    tab.expected = "ERR_INTERNET_DISCONNECTED|ERR_FAILED"
    tab.go("#/runs")
    tab.see("demo", ".run")
    tab.context.set_offline(True)
    tab.see("The service does not answer", "#notice")
    assert "demo" in tab.text(".run")  # what was there stays
    tab.context.set_offline(False)
    tab.page.locator("#notice").wait_for(state="hidden", timeout=15_000)


def test_an_empty_store_says_what_to_do_next(tmp_path: Path, open_tab):
    with served(tmp_path) as empty:
        tab = open_tab(empty.url, empty.token)
        commands = {
            "runs": "viter train",
            "checkpoints": "viter train",
            "evaluations": "viter eval",
            "play": "viter train",
        }
        for view, command in commands.items():
            tab.go(f"#/{view}")
            assert command in tab.see("viter", ".command").inner_text()
        tab.page.get_by_label("Formula").wait_for()  # a person may play without a checkpoint
