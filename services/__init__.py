"""What people touch: checkpoints over HTTP, evaluations as jobs, the `viter` command line, reports.

    cli, client, console, doctor, plan, replay   the command line, and what its commands call
    app ─► own_ray ─► ingress               the Ray Serve application, on a Ray of its own or on a cluster; its way in
    registry ─► inspection                  names and aliases -> checkpoints whose files were verified
    http/        web ─► guard, routes/      the routes, and what every request passes before them:
                 traffic (counts, log lines) ─► guard ─► tokens, admission, request_body, json_body
    engines/     replica ─► leases          a pool of vLLM engines, any checkpoint
    evaluations/ jobs ─► playing ─► journal, results
                                            evaluations as resources, in the words of `orders`; `line` says whose turn it is
    runs/        runs ─► groups, orders     runs as resources, trained as Ray jobs
    reports/     report ─► measured         one HTML page of what came of a run
    chaos/       drills ─► outcome           runs broken on purpose, and what that cost
    sweeps/      run ─► plan, results       one run file trained once for each value of a key, told side by side

The HTTP surface:

    GET  /v1/models[/{id}]                           checkpoints, OpenAI's shape, with digest and metrics
    GET  /v1/runs[/{run}[/metrics|/events|/logs|/report]]  what trains, how far it is, live numbers, what happened
    POST /v1/runs                                    trains a run file as a Ray job, or resumes it; /v1/runs/{run}/stop
    GET  /v1/runs/{run}/checkpoints                  those of one stage of a run, as `NAME-STAGE`
    PUT  /v1/runs/{run}/aliases/{alias}              names a checkpoint; DELETE takes the name away
    POST /v1/chat/completions, /v1/completions       OpenAI's protocol by vLLM's own classes, streaming too
    POST /v1/evaluations                             202 with a Location to poll; GET lists them, by checkpoint, run, status
    GET  /v1/evaluations/{id}[/items?limit&after]    progress, results, the played episodes; …/items/{suite}/{index}/images/{key}
    GET  /v1/evaluations/{id}/events                 the same as server-sent events, resumed by Last-Event-ID
    GET  /v1/evaluations/{id}/compare/{other}        the same tasks under both: paired tests, intervals, which tasks flipped
    POST /v1/evaluations/{id}/cancel                 keeps what is finished
    POST /v1/episodes                                plays one task, told turn by turn
    GET  /v1/environments                            what can be played, and with which options
    POST /v1/environments/{name}/tasks, …/images     deals a task; draws its pictures
    POST /v1/verify                                  judges an answer, or several
    GET  /v1/suites                                  the frozen task sets, with digests
    GET  /                                           the web page, from http/page
    GET  /livez, /readyz                             alive; able to answer
    GET  /openapi.json, /docs                        this list, for machines and for people
    everything but health, the page and the documents  needs `Authorization: Bearer TOKEN`, see `http/tokens`

Only `app` and `engines.router` import ray.serve, only `cli`, the `…_cli` beside it and `exits` typer;
`evaluations.scoring` is arithmetic, and `client` is this surface from Python. Start reading at `http/web`, then `engines/leases`.
"""
