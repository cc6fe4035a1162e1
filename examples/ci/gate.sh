#!/usr/bin/env bash
# The performance gate in any CI: gate.sh BASE [HEAD], from the root of a checkout with its history.
# Exit code 0 passes; 1 is a regression; all others say that nothing was shown (docs/gate.md).
set -euo pipefail

base=${1:?usage: gate.sh BASE [HEAD]}
head=${2:-HEAD}
fastppo=${FASTPPO:-.venv/bin/fastppo}
out=${OUT:-gate}
mkdir -p "$out"

# Counts, not times: whatever the machine does meanwhile, one operator more is one more.
"$fastppo" gate "$base" "$head" --only 'operators/*,bytes/*,syncs/*,modules/*' \
  --json "$out/exact.json" --junit "$out/exact.xml"

# Times: what the first run suspects, the second has to see again.
code=0
"$fastppo" gate "$base" "$head" \
  --json "$out/gate.json" --junit "$out/gate.xml" --html "$out/gate.html" --md "$out/gate.md" || code=$?
case $code in
  3 | 4) echo "gate.sh: nothing was shown (exit code $code); see $out/gate.html" >&2 ;;
esac
exit "$code"
