#!/usr/bin/env bash
# Makes the secrets that the manifests name, with random values; one that exists is left as it is.
# No secret stands in a file. HF_TOKEN and AWS_* are taken from the environment where they are set.
set -euo pipefail
namespace=${1:-viter}

make_secret() {
    local name=$1
    shift
    if kubectl -n "$namespace" get secret "$name" >/dev/null 2>&1; then
        echo "secret/$name exists"
    else
        kubectl -n "$namespace" create secret generic "$name" "$@"
    fi
}

make_secret viter-ray-token --from-literal=auth_token="$(openssl rand -hex 32)"   # Ray's dashboard, jobs and GCS
make_secret viter-redis --from-literal=password="$(openssl rand -hex 32)"
if [[ -n ${HF_TOKEN:-} ]]; then
    make_secret viter-hub --from-literal=token="$HF_TOKEN"                        # gated models of the Hugging Face hub
fi
if [[ -n ${AWS_ACCESS_KEY_ID:-} ]]; then                                          # a store on S3, without workload identity
    make_secret viter-s3 --from-literal=AWS_ACCESS_KEY_ID="$AWS_ACCESS_KEY_ID" \
        --from-literal=AWS_SECRET_ACCESS_KEY="$AWS_SECRET_ACCESS_KEY" --from-literal=AWS_REGION="${AWS_REGION:-us-east-1}"
fi
