#!/usr/bin/env bash
# This checkout -> archive, Debian package and wheel with the static program, in one folder.
#
#   packaging/dist.sh OUT
#
# Needs maturin and wheel (from PyPI) on PATH, and dpkg-deb. The same commit and compiler give
# the same archive and package: dates are that of the commit.
set -euo pipefail
# Modes go into the packages.
umask 022
cd "$(dirname "$0")/.."
out=$(mkdir -p "$1" && cd "$1" && pwd)
. packaging/static.env
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
# Set, it would make cargo build everything once more.
unset SOURCE_DATE_EPOCH

binary=$(packaging/build.sh --bins)/cudalint
version=$("$binary" --version | cut -d' ' -f2)
machine=$(uname -m)
name=cudalint-$version-linux-$machine
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

completions() { # DIR: one file per shell, named as each shell looks for it
  mkdir -p "$1"
  "$binary" completions bash >"$1/cudalint"
  "$binary" completions zsh >"$1/_cudalint"
  "$binary" completions fish >"$1/cudalint.fish"
}

echo "== $name.tar.gz"
tree=$work/$name
install -Dm755 "$binary" "$tree/cudalint"
install -m644 README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT "$tree"
"$binary" man "$tree/man"
completions "$tree/completions"
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" --directory "$work" "$name" |
  gzip --no-name --best >"$out/$name.tar.gz"

case $machine in x86_64) debian=amd64 ;; aarch64) debian=arm64 ;; *) debian=$machine ;; esac
echo "== cudalint_${version}_$debian.deb"
root=$work/deb
install -Dm755 "$binary" "$root/usr/bin/cudalint"
completions "$work/shell"
install -Dm644 "$work/shell/cudalint" "$root/usr/share/bash-completion/completions/cudalint"
install -Dm644 "$work/shell/_cudalint" "$root/usr/share/zsh/vendor-completions/_cudalint"
install -Dm644 "$work/shell/cudalint.fish" "$root/usr/share/fish/vendor_completions.d/cudalint.fish"
"$binary" man "$root/usr/share/man/man1"
gzip --no-name --best "$root"/usr/share/man/man1/*
doc=$root/usr/share/doc/cudalint
install -Dm644 packaging/debian-copyright "$doc/copyright"
gzip --no-name --best <CHANGELOG.md >"$doc/changelog.gz"
chmod 644 "$doc/changelog.gz"
mkdir "$root/DEBIAN"
cat >"$root/DEBIAN/control" <<CONTROL
Package: cudalint
Version: $version
Architecture: $debian
Maintainer: The cudalint authors <cudalint@users.noreply.github.com>
Installed-Size: $(du -ks --exclude=DEBIAN "$root" | cut -f1)
Recommends: ca-certificates
Section: utils
Priority: optional
Homepage: $(sed -n 's/^homepage = "\(.*\)"/\1/p' Cargo.toml)
Description: says whether a container image's GPU software will work on given hosts
 Reads the layers of a container image without running it, finds CUDA libraries
 and GPU code, and judges them against driver, GPU and container runtime.
CONTROL
SOURCE_DATE_EPOCH=$epoch dpkg-deb --build --root-owner-group "$root" "$out/cudalint_${version}_$debian.deb" >/dev/null

echo "== wheel"
maturin build --quiet --release --features static,isal --target "$CARGO_BUILD_TARGET" --compatibility manylinux_2_17 --out "$work/wheel"
# A program without shared libraries runs with either C library.
wheel tags --remove --platform-tag "+musllinux_1_1_$machine" "$work"/wheel/*.whl >/dev/null
mv "$work"/wheel/*.whl "$out"
