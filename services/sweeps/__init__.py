"""One run file trained once for each value of one key, and what came of them side by side.

    viter sweep RUN.yaml --over KEY=V,V,V ─► plan ─► run (init once, then a run for each value) ─► results ─► table, sweep.json

`plan` only reads and checks, so a wrong value is refused before anything is trained. Each value is an ordinary run with a
name, a report and a record of its own: what is finished is found again and not trained twice. Start at `run`.
"""
