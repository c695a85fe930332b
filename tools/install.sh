#!/usr/bin/env bash
# Installs the frameworks that plain pip cannot, and the rest beside them, into one Python environment.
#
#   tools/install.sh PART...        PART: core | detectron2 | openmmlab | peers | dev
#
# PYTHON names the interpreter (default: python). Every part can be repeated: what already imports is
# left alone, so a torch, Detectron2 or MMCV of your own is kept, and after a broken network or Ctrl-C
# the same command goes on where it stopped. README.md and the Makefile both call this file.
set -euo pipefail

PYTHON=${PYTHON:-python}
HERE=$(cd "$(dirname "$0")/.." && pwd)

# The set the tests run on. A version of yours that already imports wins over these.
TORCH=(torch==2.14.1 torchvision==0.29.1)
BUILD=('setuptools>=80,<81' wheel packaging ninja)   # detectron2 imports pkg_resources, gone from newer setuptools
DETECTRON2=sal-detectron2==0.7.2                     # detectron2 itself has no release on PyPI
MMCV=onedl-mmcv==2.3.6
OPENMMLAB=(onedl-mmengine==0.10.12 onedl-mmdetection==3.5.1 onedl-mmsegmentation==1.4.2)
# MMPretrain 1.3 does not import beside transformers 5, and MMDetection imports MMPretrain where it is installed.
PEERS=(timm==1.0.31 transformers==4.57.6 pycls==0.1.1 classy-vision==0.7.0 onedl-mmpretrain==1.3.6)

say() { printf '\033[1m[install]\033[0m %s\n' "$*"; }
die() { printf '[install] error: %s\n' "$*" >&2; exit 1; }
pip() { "$PYTHON" -m pip --disable-pip-version-check "$@"; }
# Both streams are silenced: only the answer matters here, and frameworks warn a lot while importing.
imports() { "$PYTHON" -c "import $1" >/dev/null 2>&1; }
installed() { "$PYTHON" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$1') is None)"; }

install_core() {
  say "build tools and PyTorch (about 5.5 GB, some minutes the first time)"
  installed torch && installed torchvision || pip install "${BUILD[@]}" "${TORCH[@]}"
  # The newest setuptools breaks detectron2, so the bound is asked for again whatever torch brought.
  pip install --quiet "${BUILD[@]}"
  say "regnet_backbones itself"
  pip install --quiet --no-build-isolation --editable "$HERE"
}

install_detectron2() {
  pip install --quiet --no-build-isolation --editable "$HERE[detectron2]"
  if imports detectron2.modeling; then
    say "Detectron2 imports already: left as it is"
    return
  fi
  local site
  site=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  if installed detectron2 && ! ls -d "$site"/sal_detectron2-*.dist-info >/dev/null 2>&1; then
    die "a detectron2 that this script did not install is there but does not import ($PYTHON -c 'import detectron2.modeling' says why); repair or uninstall it, then run this again"
  fi
  say "Detectron2 (the pure-Python part; operators come from torchvision)"
  # Its wheel is tagged for Python 3.10. --upgrade replaces what an interrupted copy may have left.
  pip install --quiet --no-deps --upgrade --only-binary=:all: --python-version 3.10 --implementation cp \
    --abi none --platform any --target "$site" "$DETECTRON2"
  imports detectron2.modeling || die "Detectron2 was installed but does not import: $("$PYTHON" -c 'import detectron2.modeling' 2>&1 | tail -n 1)"
}

# Torch's headers need C++20 while MMCV's build asks for C++17; of two -std flags the last one wins.
cxx20_wrapper() {
  printf '#!/bin/sh\nexec %s "$@" -std=c++20\n' "${CXX:-c++}" >"$1" && chmod +x "$1"
}

install_openmmlab() {
  if imports mmcv.ops; then
    say "MMCV imports already: left as it is"
  else
    command -v "${CXX:-c++}" >/dev/null || die "MMCV compiles its operators and needs a C++ compiler (Debian: apt-get install g++)"
    say "MMCV: compiling its operators, about 10 minutes on 2 cores, seconds when pip has the wheel cached"
    local bin
    bin=$(mktemp -d)
    cxx20_wrapper "$bin/c++20"
    CXX="$bin/c++20" pip install --no-build-isolation "$MMCV" || { rm -rf "$bin"; die "MMCV did not build; the compiler's first error is above"; }
    rm -rf "$bin"
  fi
  say "MMEngine, MMDetection, MMSegmentation"
  pip install --quiet --no-build-isolation "${OPENMMLAB[@]}" ftfy regex
}

install_peers() {
  say "the other RegNets that the tests compare with"
  pip install --quiet --no-build-isolation "${PEERS[@]}"
}

install_dev() {
  say "test and lint tools"
  pip install --quiet --no-build-isolation --editable "$HERE[dev]"
}

[ $# -gt 0 ] || die "name what to install: core, detectron2, openmmlab, peers, dev"
for part in "$@"; do
  case "$part" in
    core | detectron2 | openmmlab | peers | dev) "install_$part" ;;
    *) die "unknown part '$part'; there are core, detectron2, openmmlab, peers and dev" ;;
  esac
done
