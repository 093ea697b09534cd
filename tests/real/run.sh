#!/usr/bin/env bash
# run.sh [--binary PATH] [--cache DIR] - all tests against real images, in order.
#
# Installs what they need (as root, with apt-get), runs fatbin.py, corpus.py, sources.py, seekable.py, wrong_input.py, sweep.py, fleet.py,
# formats.py, action.py, packages.py, serve.py, serve_faults.py and deploy.py, prints what each of them says, then their summary lines, and ends with 1 if any failed. Limit: 14 minutes on 2 cores; measured
# on 2 busy cores with an empty cache (0.75 GB of downloads): 763 s.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
start=$(date +%s)

packages=''
for pair in docker-registry:docker-registry skopeo:skopeo umoci:umoci readelf:binutils zstd:zstd igzip:isal \
            htpasswd:apache2-utils openssl:openssl gcc:gcc curl:curl chromium:chromium chromedriver:chromium-driver podman:podman \
            buildah:buildah containerd:containerd git:git npm:npm man:man-db; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || packages="$packages ${pair##*:}"
done
if [ -n "$packages" ]; then
  [ "$(id -u)" = 0 ] || { echo "run.sh: not installed, and not root:$packages" >&2; exit 1; }
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086
  { apt-get -qq update && apt-get -o DPkg::Lock::Timeout=300 -qq install -y --no-install-recommends $packages; } >/dev/null ||
    { echo "run.sh: cannot install:$packages" >&2; exit 1; }
fi

said=$(mktemp) failed=0 summary=''
trap 'rm -f "$said"' EXIT
for test in fatbin corpus sources seekable wrong_input sweep fleet formats action packages serve serve_faults deploy; do
  echo "== $test"
  python3 "$here/$test.py" "$@" 2>&1 | tee "$said" || failed=$((failed + 1))
  line=$(grep "^$test.py: " "$said" | tail -1)
  [ -n "$line" ] || { line="$test.py: ended without a summary"; }
  summary="$summary$line"$'\n'
done
echo "== summary ($(($(date +%s) - start)) s)"
printf '%s' "$summary"
[ "$failed" = 0 ]
