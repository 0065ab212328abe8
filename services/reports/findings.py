"""Plain sentences on what was and was not seen, made of the numbers and their intervals alone. Pure."""

from envs.suites import Headline
from services.evaluations.orders import RateModel, SuiteResult
from services.reports.measured import RATE_NAMES, STAGE_NAMES, Measured

KIND_NAMES = {"id": "ID", "ood": "OOD"}
COMPARED: dict[Headline, str] = {
    "success": "solves {} OOD tasks than",
    "per_step_accuracy": "gets {} OOD steps right than",
}
THINGS: dict[Headline, str] = {"success": "OOD tasks", "per_step_accuracy": "OOD steps"}


def sentences(measured: Measured) -> list[str]:
    """One sentence for each branch, then what the two say together, then one for each further OOD suite."""
    found = [text for stage in ("ppo", "sft_branch") if (text := _branch(measured, stage))]
    if not found:
        return ["Nothing was compared: the run has no init checkpoint with a branch to compare it with."]
    trained = (
        [f"RL trained with verification iterations that changed: {measured.curriculum}."] if measured.curriculum else []
    )
    return [*found, *_together(measured), *_further(measured), *trained, _how(measured)]


def change(before: RateModel, after: RateModel) -> str:
    """`rose`, `fell` or `did not move beyond noise`: a change is one where the 95 % intervals lie apart."""
    if after.low > before.high:
        return "rose"
    if after.high < before.low:
        return "fell"
    return "did not move beyond noise"


def _branch(measured: Measured, stage: str) -> str:
    """`RL: ID success rose (from 0.41 to 0.62, …); OOD success did not move beyond noise (from 0.12 to 0.15, …).`"""
    before, after = measured.final("init"), measured.final(stage)
    if before is None or after is None:
        return ""
    clauses = []
    for kind, name in KIND_NAMES.items():
        suite = measured.first(kind)
        if suite is None or suite not in before.results or suite not in after.results:
            continue
        clauses.append(_clause(name, before.results[suite], after.results[suite]))
    deals = measured.deals.get(stage)
    tasks = f" on {deals} {measured.tasks_word}" if deals else ""
    return f"{STAGE_NAMES[stage]}{tasks}: {'; '.join(clauses)}." if clauses else ""


def _clause(name: str, before: SuiteResult, after: SuiteResult) -> str:
    numbers = f"from {before.main.rate:.2f} to {after.main.rate:.2f}"
    verb = change(before.main, after.main)
    apart = "" if verb.startswith("did") else ", intervals apart"
    unit = " answers" if after.headline == "per_step_accuracy" else ""
    return f"{name} {RATE_NAMES[after.headline]} {verb} ({numbers}{apart}, n\u00a0=\u00a0{after.main.n}{unit})"


def _together(measured: Measured) -> list[str]:
    """Whether the paper's contrast, RL generalises where SFT memorises, was seen."""
    suite, start = measured.first("ood"), measured.final("init")
    rl, sft = measured.final("ppo"), measured.final("sft_branch")
    if suite is None or rl is None or sft is None or start is None:
        return []
    if any(suite not in point.results for point in (rl, sft, start)):
        return []
    ours, theirs, first = (point.results[suite].main for point in (rl, sft, start))
    numbers = f"{ours.rate:.2f} against {theirs.rate:.2f}"
    verdict, compared = change(theirs, ours), COMPARED[measured.headline]
    if verdict == "rose":
        kept = {"rose": "raised", "fell": "lowered"}.get(change(first, ours), "kept")
        return [f"After training, RL {compared.format('more')} SFT ({numbers}); it {kept} what init had."]
    if verdict == "fell":
        return [f"The paper's contrast was not seen: RL {compared.format('fewer')} SFT ({numbers})."]
    return [f"No difference between RL and SFT on {THINGS[measured.headline]} was seen beyond noise ({numbers})."]


def _further(measured: Measured) -> list[str]:
    """`On ood-visual, success under RL rose (0.21 to 0.36) and under SFT fell (0.21 to 0.14); RL ends above SFT.`"""
    return [text for suite in measured.of_kind("ood")[1:] if (text := _elsewhere(measured, suite))]


def _elsewhere(measured: Measured, suite: str) -> str:
    points = {stage: measured.final(stage) for stage in ("init", "ppo", "sft_branch")}
    rates = {stage: p.results[suite].main for stage, p in points.items() if p is not None and suite in p.results}
    before = rates.pop("init", None)
    if before is None or not rates:
        return ""
    moved = [
        f"under {STAGE_NAMES[stage]} {change(before, after)} ({before.rate:.2f} to {after.rate:.2f})"
        for stage, after in rates.items()
    ]
    order = change(rates["sft_branch"], rates["ppo"]) if len(rates) == 2 else ""
    ends = {"rose": "; RL ends above SFT", "fell": "; RL ends below SFT"}.get(order, "")
    return f"On {suite.partition('/')[2]}, {RATE_NAMES[measured.headline]} {' and '.join(moved)}{ends}."


def _how(measured: Measured) -> str:
    sampled = f"sampled at temperature {measured.temperature:g}" if measured.temperature else "decoded greedily"
    if measured.headline == "per_step_accuracy":
        return (
            f"Per-step accuracy is the share of judged answers that are correct, revisions included, with at most "
            f"{measured.viter} attempts at a step, {sampled}; intervals are 95 % Wilson over answers, "
            "and a change counts only where two intervals lie apart."
        )
    return (
        f"Success means solved within {measured.viter} attempts, {sampled}; intervals are 95 % Wilson, "
        "and a change counts only where two intervals lie apart."
    )
