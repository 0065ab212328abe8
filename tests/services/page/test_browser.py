"""The page in a real Chromium, over the real routes and a store of real files; only the engine is made up."""

import re
import time

import pytest
from playwright.sync_api import expect

from services.http import tokens
from tests.services.page.served import HOSTILE, ID, OOD, SEEN, Served, ended

pytestmark = pytest.mark.slow


def told(rate: dict) -> str:
    return f"{rate['rate']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"


def test_the_token_is_asked_for_at_the_first_401_and_stays_in_the_tab(service: Served, open_tab):
    tab = open_tab(service.url)
    tab.expected = "401"
    tab.page.goto(f"{service.url}/#/checkpoints")
    field = tab.page.get_by_label("Bearer token")
    field.fill("viter-wrong")
    field.press("Enter")
    tab.see("This is no token of the service", "dialog")
    tab.page.get_by_label("Bearer token").fill(service.token)
    tab.page.get_by_role("button", name="Continue").click()
    tab.see("demo-ppo", "h2")
    assert tab.page.evaluate("[sessionStorage.getItem('viter.token'), localStorage.getItem('viter.token')]") == [
        service.token, None
    ]  # fmt: skip
    tab.page.reload()
    tab.see("demo-ppo", "h2")
    assert tab.page.locator("dialog").count() == 0
    assert not any(service.token in url for url in [*tab.requests, tab.page.url])


def test_a_token_is_kept_on_the_device_only_where_that_is_asked_for(service: Served, open_tab):
    tab = open_tab(service.url)
    tab.expected = "401"
    tab.page.goto(f"{service.url}/#/checkpoints")
    tab.page.get_by_label("Keep on this device").check()
    tab.page.get_by_label("Bearer token").fill(service.token)
    tab.page.get_by_role("button", name="Continue").click()
    tab.see("demo-ppo", "h2")
    another = tab.context.new_page()
    another.goto(f"{service.url}/#/checkpoints")
    another.locator("h2", has_text="demo-ppo").first.wait_for()
    another.get_by_role("button", name="Token").click()
    another.get_by_role("button", name="Forget it").click()
    another.locator("dialog").wait_for()
    assert another.evaluate("localStorage.getItem('viter.token')") is None


def test_what_a_token_may_not_do_is_told_in_a_sentence(service: Served, open_tab):
    reader = tokens.create(service.store / "service", "reader", "read", None)
    time.sleep(tokens.LOOK_S)
    tab = open_tab(service.url, reader)
    tab.expected = "403"
    tab.go("#/checkpoints")
    tab.page.get_by_role("button", name="Evaluate demo-ppo@step-000030").click()
    tab.page.get_by_role("button", name="Order it").click()
    tab.see("evaluate", "dialog [role=alert]")


def test_an_alias_is_set_and_removed(service: Served, open_tab):
    tab = open_tab(service.url, service.token)
    tab.go("#/checkpoints?run=demo-ppo")
    tab.page.get_by_role("button", name="Aliases of demo-ppo@step-000010").click()
    tab.page.get_by_label("New alias").fill("good")
    tab.page.get_by_role("button", name="Set alias").click()
    tab.see("good", "tr:has-text('Evaluate') .badge")
    with service.client() as http:
        assert http.get("/v1/models/demo-ppo@good").json()["id"] == "demo-ppo@step-000010"
        tab.page.get_by_role("button", name="Aliases of demo-ppo@step-000010").click()
        tab.page.get_by_role("button", name="Remove alias good").click()
        tab.page.locator("td .badge", has_text="good").wait_for(state="detached")
        assert http.get("/v1/models/demo-ppo@good").status_code == 404


def test_an_evaluation_is_ordered_and_followed_to_its_end(service: Served, evaluations, open_tab):
    tab = open_tab(service.url, service.token)
    service.model.pause_s = 0.04
    try:
        tab.go("#/checkpoints")
        tab.page.get_by_role("button", name="Evaluate demo-sft@step-000012").click()
        tab.page.locator("dialog summary", has_text="general_points").click()
        tab.page.locator(f"dialog input[value='{OOD}']").check()
        tab.page.get_by_label("Tasks per suite").fill("25")
        tab.page.get_by_label("Temperature").fill("0.5")
        tab.page.get_by_role("button", name="Order it").click()
        tab.see("0.5", "main p")
        seen = set()
        while tab.page.locator("progress").count():
            seen.add(tab.page.evaluate("document.querySelector('progress')?.value ?? 25"))
            tab.page.wait_for_timeout(20)
        assert len(seen) > 2  # it grew before our eyes
    finally:
        service.model.pause_s = 0.0
    evaluation_id = tab.page.url.rpartition("/")[2]
    with service.client() as http:
        result = ended(http, evaluation_id)["results"][0]
    tab.see(told(result["success"]), ".bars")
    assert result["suite"] == OOD
    tab.see("25 episodes of 25")
    assert "Evaluation completed" in tab.text("#spoken")


def test_two_evaluations_stand_side_by_side(service: Served, evaluations, open_tab):
    tab = open_tab(service.url, service.token)
    tab.go("#/evaluations")
    pair = [evaluations["demo-sft@step-000012"], evaluations["demo-ppo@step-000030"]]
    assert tab.page.get_by_role("button", name="Compare").is_disabled()
    for each in pair:
        tab.page.get_by_role("checkbox", name=re.compile(each["id"])).check()
    tab.page.get_by_role("button", name="Compare 2").click()
    tab.see("The same tasks, pair by pair", "h2")
    with service.client() as http:
        found = http.get(f"/v1/evaluations/{pair[0]['id']}/compare/{pair[1]['id']}").json()
    for suite in found["suites"]:
        assert suite["in_words"][1:] in tab.text()  # its first letter is a capital here
    for each in pair:
        for result in each["results"]:
            assert told(result["success"]) in tab.text()


def test_episodes_are_filtered_and_read_with_the_verifiers_words(service: Served, evaluations, open_tab):
    evaluation = evaluations["demo-ppo@step-000030"]
    with service.client() as http:
        items = http.get(f"/v1/evaluations/{evaluation['id']}/items", params={"limit": 1000}).json()["data"]
    revised = [item for item in items if item["success"] and len(item["turns"]) > 1 and item["suite"] == OOD]
    tab = open_tab(service.url, service.token)
    tab.go(f"#/evaluation/{evaluation['id']}")
    tab.page.get_by_role("radio", name="solved after revision").check()
    tab.page.get_by_label("Suite").select_option(OOD)
    assert f"{len(revised)} episodes of {len(items)}" in tab.see("episodes of", "[role=status]").inner_text()
    tab.page.locator("ol.episodes summary").first.click()
    turns = tab.page.locator("ol.episodes li").first.locator(".turn")
    expect(turns).to_have_count(len(revised[0]["turns"]))
    assert revised[0]["turns"][0]["feedback"].split("\n")[0] in turns.first.inner_text()
    tab.page.get_by_role("link", name="Link to this episode").click()
    assert revised[0]["turns"][-1]["feedback"] in tab.see("solved after revision", ".chosen").inner_text()
    tab.page.go_back()
    tab.page.locator("ol.episodes > li").nth(1).wait_for()


def test_what_a_model_writes_is_shown_as_text(service: Served, evaluations, open_tab):
    tab = open_tab(service.url, service.token)
    tab.go(f"#/evaluation/{evaluations['demo-ppo@step-000030']['id']}/{ID}/1")
    assert tab.see("onerror", ".chosen .answer").inner_text() == HOSTILE
    assert tab.page.evaluate("window.harmed") is None
    assert tab.page.locator("main img").count() == 0


def test_the_picture_that_a_model_saw_is_shown(service: Served, evaluations, open_tab):
    tab = open_tab(service.url, service.token)
    tab.go(f"#/evaluation/{evaluations['seen']['id']}/{SEEN}/0")
    expect(tab.page.locator(".chosen img")).to_have_js_property("naturalWidth", 96)
    assert tab.page.locator(".chosen img").get_attribute("src").startswith("blob:")


def test_a_hand_is_played_by_a_person_and_by_a_checkpoint(service: Served, open_tab):
    tab = open_tab(service.url, service.token)
    tab.go("#/play")
    tab.page.get_by_label("Or type a hand").fill("7 k 7 a")
    tab.page.get_by_role("button", name="Use it").click()
    tab.page.get_by_role("img", name="king of hearts").wait_for()
    for formula, words in (("7+7", "you didn't use numbers"), ("7+7+10*1", "Correct solution.")):
        tab.page.get_by_label("Formula").fill(formula)
        tab.page.get_by_role("button", name="Judge").click()
        tab.see(words, ".player .verdict")
    tab.see("Solved.", "[role=status]")
    tab.page.get_by_role("radio", name="11, 12, 13").check()
    tab.see("J, Q and K are 11, 12 and 13", ".goal")
    tab.page.get_by_role("button", name="Let it answer").click()
    tab.see("Solved; reward", "[role=status]")
    assert tab.page.locator(".played .turn").count() == 2


def test_a_deal_that_comes_late_replaces_nothing(service: Served, open_tab):
    tab = open_tab(service.url, service.token)
    held: list = []
    tab.page.route("**/v1/environments/general_points/tasks", lambda route: held.append(route))
    tab.go("#/play")
    tab.page.get_by_label("Task", exact=True).select_option("virl")
    tab.page.locator(".instructions li").nth(1).wait_for()
    with tab.page.expect_response("**/v1/environments/general_points/tasks"):
        held[0].continue_()
    tab.page.evaluate("() => new Promise((done) => setTimeout(done, 100))")  # what the answer brings about has happened
    assert tab.page.locator(".instructions li").count() > 1
    assert tab.page.locator(".hand").count() == 0


def test_a_route_is_walked_by_a_checkpoint(service: Served, open_tab):
    tab = open_tab(service.url, service.token)
    tab.go("#/play")
    tab.page.get_by_label("Task", exact=True).select_option("virl")
    tab.page.locator(".instructions li").nth(1).wait_for()
    tab.page.get_by_role("button", name="Let it answer").click()
    tab.see("Solved; reward", "[role=status]")
    assert tab.page.locator(".played h4").count() > 3
