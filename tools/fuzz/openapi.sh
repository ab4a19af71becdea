#!/usr/bin/env bash
# Let schemathesis send requests made from the OpenAPI document: tools/fuzz/openapi.sh [SECONDS]
# It is no dependency of the project:  python -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install schemathesis
set -euo pipefail
seconds=${1:-60}
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python} schemathesis=${SCHEMATHESIS:-/tmp/fuzz/bin/schemathesis}
work=$(mktemp -d)
cd "$work"
export PYTHONPATH="$root/src:$root"
"$python" -c "from pathlib import Path; from tests.service.serving import export; export(Path('bundle'))"
"$python" -m genre_classifier.cli.main serve --bundle bundle/genre_classifier_production --port 0 2> log &
service=$!
trap 'kill $service; rm -rf "$work"' EXIT
until address=$(grep -o 'http://127[0-9.:]*' log); do kill -0 $service; sleep 0.1; done
end=$((SECONDS + seconds)) seed=1
while ((SECONDS < end)); do
    "$schemathesis" run "$address/openapi.json" \
        --checks not_a_server_error,status_code_conformance,content_type_conformance \
        --request-timeout 30 --no-color --max-examples 200 --seed $((seed++)) --max-time "$((end - SECONDS))"
done
! grep -i traceback log
