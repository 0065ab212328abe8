"""What people touch: checkpoints over HTTP, evaluations as jobs, the `viter` command line, reports.

    app ─► web ─► guard (tokens, body limit), problems (errors)     one Ray Serve application, three deployments:
            ├──► registry ─► store                                    gateway      web, guard, registry
            ├──► replica ─► leases ─► cluster.engine                  replica      one vLLM engine, any checkpoint
            └──► evaluations ─► journal, results ─► scoring           evaluations  jobs, in the words of `orders`

The HTTP surface:

    GET  /v1/models[/{id}]                           checkpoints, OpenAI's shape, with digest and metrics
    POST /v1/chat/completions, /v1/completions       OpenAI's protocol by vLLM's own classes, streaming too
    POST /v1/evaluations                             202 with a Location to poll; GET lists them
    GET  /v1/evaluations/{id}[/items?limit&after]    progress, results, the played episodes
    POST /v1/evaluations/{id}/cancel                 keeps what is finished
    POST /v1/verify                                  judges one answer, as `viter verify` does
    GET  /v1/suites                                  the frozen task sets, with digests
    GET  /livez, /readyz                             alive; able to answer
    GET  /openapi.json, /docs                        this list, for machines and for people
    every /v1 route                                  needs `Authorization: Bearer TOKEN`

Only `app` imports ray.serve and only `cli` typer; `scoring` is arithmetic, and `client` is this surface from Python.
Start reading at `web`, then `leases`.
"""
