"""Faults on purpose: `viter chaos` breaks real runs on this machine, again and again, and counts what that cost.

    drills        every drill by name: what is broken, how often in short and at length, and the function that does it
    outcome       what a drill found: claims that held or did not, numbers, and the table of all
    play          rollouts of a real orchestrator with stand-in engines, driven as a learner would
    stand_in      that engine: tokens from a seed, at any speed
    rig           several Ray nodes on one machine, in namespaces; `afar` is what plays on its head, `steps` reads what it tells
    clients       clients of a service on a node of a rig: `head` kills its head meanwhile
    killed_writer a writer of checkpoints that kills itself
    rollouts, broadcasts, storage, nodes, joins, head, runs, sizes, nonfinite, soak   the drills themselves
    overflow      an environment of one of them

A drill returns claims instead of raising, so that one table shows all of them; `tests/faults` asserts the same claims.
"""
