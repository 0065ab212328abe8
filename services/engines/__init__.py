"""Checkpoints that answer: replicas of one engine each, whose weights change under leases.

    request, by digest ─► router ─► routing: which replica
                             └─► deployment ─► replica ─► leases: when its engine may change
                                                 ├─► vLLM
                                                 └─► verifiers

`calls` is how the gateway asks, and `lifelines` ends what a replica owes whose machine fell silent. `routing` and
`leases` are plain Python and hold the two decisions. Start reading at `replica`.
"""
