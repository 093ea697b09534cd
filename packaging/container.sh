#!/usr/bin/env bash
# The static program -> a container image that holds nothing but it and the public certificate authorities.
#
#   packaging/container.sh IMAGE      with docker, podman or buildah, whichever is there
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${CUDALINT_BINARY:-$(packaging/build.sh --bins)/cudalint}
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
install -m755 "$binary" "$context/cudalint"
cp /etc/ssl/certs/ca-certificates.crt "$context"
for builder in docker podman 'buildah bud'; do
  command -v "${builder%% *}" >/dev/null || continue
  # A docker client without its daemon builds nothing.
  [ "$builder" != docker ] || docker info >/dev/null 2>&1 || continue
  [ "$builder" = 'buildah bud' ] || builder="$builder build"
  $builder --tag "$1" --file packaging/Containerfile "$context"
  exit
done
echo "none of docker, podman and buildah can build here" >&2
exit 1
