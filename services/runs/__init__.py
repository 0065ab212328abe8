"""Training over HTTP: runs as resources. A run is read from its store, and trained as a Ray job of its name.

    runs ─► groups   what the store and the job say of a run: stages, status, metrics, events
      │ └─► orders   what is asked for, checked, to a RunConfig
      └───► jobs     the Ray cluster that trains it

Only `jobs` talks to Ray. Start reading at `runs`.
"""
