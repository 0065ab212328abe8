"""Plain sentences on what was and was not seen, made of the numbers and their intervals alone. Pure."""

from services.measured import STAGE_NAMES, Measured
from services.orders import RateModel, SuiteResult

KIND_NAMES = {"id": "ID", "ood": "OOD"}


def headline(measured: Measured) -> str:
    """The finding in one paragraph."""
    return " ".join(sentences(measured))


def sentences(measured: Measured) -> list[str]:
    """One sentence for each branch, then what the two say together."""
    found = [text for stage in ("ppo", "sft_branch") if (text := _branch(measured, stage))]
    if not found:
        return ["Nothing was compared: the run has no init checkpoint with a branch to compare it with."]
    return [*found, *_together(measured), _how(measured)]


def change(before: RateModel, after: RateModel) -> str:
    """`rose`, `fell` or `did not move beyond noise`: a change is one where the 95 % intervals lie apart."""
    if after.low > before.high:
        return "rose"
    if after.high < before.low:
        return "fell"
    return "did not move beyond noise"


def _branch(measured: Measured, stage: str) -> str:
    """`RL raised ID success from 0.41 to 0.62; its OOD success did not move beyond noise (0.12 to 0.15).`"""
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
    hands = f" on {deals} hands" if deals else ""
    return f"{STAGE_NAMES[stage]}{hands}: {'; '.join(clauses)}." if clauses else ""


def _clause(name: str, before: SuiteResult, after: SuiteResult) -> str:
    numbers = f"from {before.success.rate:.2f} to {after.success.rate:.2f}"
    verb = change(before.success, after.success)
    apart = "" if verb.startswith("did") else ", intervals apart"
    return f"{name} success {verb} ({numbers}{apart}, n\u00a0=\u00a0{after.success.n})"


def _together(measured: Measured) -> list[str]:
    """Whether the paper's contrast, RL generalises where SFT memorises, was seen."""
    suite, start = measured.first("ood"), measured.final("init")
    rl, sft = measured.final("ppo"), measured.final("sft_branch")
    if suite is None or rl is None or sft is None or start is None:
        return []
    if any(suite not in point.results for point in (rl, sft, start)):
        return []
    ours, theirs, first = (point.results[suite].success for point in (rl, sft, start))
    numbers = f"{ours.rate:.2f} against {theirs.rate:.2f}"
    verdict = change(theirs, ours)
    if verdict == "rose":
        kept = {"rose": "raised", "fell": "lowered"}.get(change(first, ours), "kept")
        return [f"After training, RL solves more OOD tasks than SFT ({numbers}); it {kept} what init had."]
    if verdict == "fell":
        return [f"The paper's contrast was not seen: RL solves fewer OOD tasks than SFT ({numbers})."]
    return [f"No difference between RL and SFT on OOD tasks was seen beyond noise ({numbers})."]


def _how(measured: Measured) -> str:
    sampled = f"sampled at temperature {measured.temperature:g}" if measured.temperature else "decoded greedily"
    return (
        f"Success means solved within {measured.viter} attempts, {sampled}; intervals are 95 % Wilson, "
        "and a change counts only where two intervals lie apart."
    )
