#!/bin/sh
# HAProxy that is killed with whoever started it. Ray Serve runs it by RAY_SERVE_HAPROXY_BINARY_PATH; see services/ingress.py.
exec setpriv --pdeathsig KILL "$VITER_HAPROXY" "$@"
