#!/usr/bin/env bash
# The action's input `version` -> a cudalint whose SHA-256 stands in checksums.txt, and where its cache is, as step outputs.
# What is downloaded is checked before it is unpacked; the list lies beside this script, not beside the download.
set -euo pipefail

list=$(dirname "$0")/checksums.txt

# An annotation; escaped, since an input may be part of the message.
fail() {
  local message=$1
  message=${message//%/%25}
  message=${message//$'\r'/%0D}
  printf '::error title=cudalint::%s\n' "${message//$'\n'/%0A}"
  exit 2
}

# A random end mark keeps a value with line breaks from becoming a second output.
output() {
  local end
  end=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  printf '%s<<%s\n%s\n%s\n' "$1" "$end" "$2" "$end" >>"$GITHUB_OUTPUT"
}

download() {
  local version=$1 machine name sum url dir found
  if [ -z "$version" ]; then
    version=$(sed -nE 's/^[0-9a-f]{64}  cudalint-(.+)-linux-[a-z0-9_]+\.tar\.gz$/\1/p' "$list" | tail -1)
    [ -n "$version" ] || fail "this revision of the action lists no release; use a newer one, or \`version: preinstalled\`"
  fi
  [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]] ||
    fail "\`version: $version\` is neither X.Y.Z nor \`preinstalled\`"
  case $RUNNER_OS-$RUNNER_ARCH in
    Linux-X64) machine=linux-x86_64 ;;
    Linux-ARM64) machine=linux-aarch64 ;;
    *) fail "there is no cudalint for $RUNNER_OS on $RUNNER_ARCH; run this job on Linux, x64 or arm64" ;;
  esac
  name=cudalint-$version-$machine
  sum=$(awk -v name="$name.tar.gz" '$2 == name && $1 ~ /^[0-9a-f]+$/ && length($1) == 64 { print $1 }' "$list")
  [ ${#sum} = 64 ] || fail "$name.tar.gz is not in this action's checksums.txt; use a revision of the action that lists it"

  # `uses: ./` has no repository of its own: then it is the workflow's.
  url=${CUDALINT_RELEASE_BASE:-https://github.com/${ACTION_REPOSITORY:-$GITHUB_REPOSITORY}/releases/download}
  url=$url/v$version/$name.tar.gz
  dir=$(mktemp -d "$RUNNER_TEMP/cudalint-install.XXXXXX")
  curl --fail --silent --show-error --location --retry 3 --output "$dir/release" --url "$url" 2>"$dir/said" ||
    fail "cannot download $url: $(cat "$dir/said")"
  found=$(sha256sum <"$dir/release")
  [ "${found%% *}" = "$sum" ] || fail "refused: $url has the SHA-256 ${found%% *}, checksums.txt says $sum"
  tar -xzf "$dir/release" -C "$dir" "$name/cudalint"
  rm "$dir/release"
  binary=$dir/$name/cudalint
}

if [ "$INPUT_VERSION" = preinstalled ]; then
  binary=${CUDALINT_BINARY:-$(command -v cudalint || true)}
  [ -x "$binary" ] || fail "\`version: preinstalled\`, but no cudalint is on PATH and CUDALINT_BINARY names none"
else
  download "${INPUT_VERSION#v}"
fi
version=$("$binary" --version | tr -cd 'A-Za-z0-9.+ -') || fail "$binary does not run here"
version=${version##* }

# The same place in every run, as actions/cache restores paths; made absolute for both of its users.
cache=$INPUT_CACHE_DIR
[ -n "$cache" ] || [ "${INPUT_CACHE,,}" = false ] || cache=$RUNNER_TEMP/cudalint-cache
case $cache in
  *$'\n'*) fail "\`cache-dir\` has several lines" ;;
  '' | /*) ;;
  \~/*) cache=$HOME/${cache#\~/} ;;
  *) cache=$PWD/$cache ;;
esac

# A matrix of jobs judges several images: each job finds its own image's layers first, then any.
images=$(printf '%s\n' "$INPUT_IMAGE" "$INPUT_PATH" "$INPUT_PLATFORM" | sha256sum)
output binary "$binary"
output cache-dir "$cache"
output cache-any "cudalint-$RUNNER_OS-$version-"
output cache-own "cudalint-$RUNNER_OS-$version-${images:0:16}-"
