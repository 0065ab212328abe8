"""Checkpoints that answer: replicas of one engine each, whose weights change under leases.

    request, by digest ─► router ─► routing: which replica
                             └─► deployment ─► replica ─► leases: when its engine may change
                                                 ├─► vLLM
                                                 └─► verifiers

`routing` and `leases` are plain Python and hold the two decisions. Start reading at `replica`.
"""
