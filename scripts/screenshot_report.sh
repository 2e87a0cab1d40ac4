#!/usr/bin/env bash
# Draws a run folder's report and photographs its top with a headless Chromium: scripts/screenshot_report.sh RUN_DIR OUT.png
# THEME=dark for the dark page; WIDTH and HEIGHT in pixels of the page, SCALE for finer ones in the picture; CHROMIUM names
# the browser, PYTHON the interpreter.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $0 RUN_DIR OUT.png" >&2
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
browser=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
if [ -z "$browser" ]; then
    echo "no Chromium found; install one (Debian: apt-get install chromium) or set CHROMIUM" >&2
    exit 2
fi
python=${PYTHON:-$root/.venv/bin/python}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" -m openrlhf_prm.cli.report --run "$1" --output "$scratch/report.html" >/dev/null
theme=1
[ "${THEME:-light}" = dark ] && theme=0
"$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --no-first-run --disable-background-networking \
    --user-data-dir="$scratch/profile" --blink-settings="preferredColorScheme=$theme" --force-device-scale-factor="${SCALE:-2}" \
    --window-size="${WIDTH:-1200},${HEIGHT:-1600}" --screenshot="$scratch/page.png" "file://$scratch/report.html" \
    >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }
mv "$scratch/page.png" "$2"
