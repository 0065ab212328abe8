"""The machines: where actors run, how episodes are played, how weights travel.

    launch ─► connection, placement ─► actors ─► orchestrator ⇄ rollout workers ⇄ verifiers
                                                     │ episodes      ▲ weights
                                                     └─► learner_group

Who waits for whom: the learner waits in `Orchestrator.take` for a step's episodes and in `publish` for every engine to
confirm new weights; the orchestrator waits in `collect` for a worker's finished episodes; an episode waits for its engine,
then for a verifier; nobody waits for the learner but the gate on staleness in `ledger`.

Knows no HTTP and no command line. Only `actors` uses `ray.remote`, only `engine/` imports vLLM; `ledger`, `dealer`,
`stragglers`, `rollout`, `rollout_worker`, `orchestrator` and the plan in `placement` are plain Python. `crew` is how the
orchestrator sees actors, in the words of `worker`. `weight_sender` sends each version as a parcel (`weights`) and, where few
bytes change, as a `weight_delta`; or `weight_broadcaster` sends it to all engines at once. `quarantine` makes a file of an
episode that nobody could judge or play.
`forecast` says what a step will take, from a card's data sheet or from the rates of a finished run (`run_rates`), with its
rollouts simulated in `bubble`. `metrics` names every series that Prometheus gets; `mirror` shows it a run, from the driver
alone. Start reading at `rollout.play`, then `orchestrator`.
"""
