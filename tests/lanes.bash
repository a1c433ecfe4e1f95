# Sourced by tests/run: runs the workspace's test programs side by side. Most of the end-to-end ones wait (for a broker, a lease,
# a proxy) far more than they compute, so that one after the other they leave the machine idle for minutes.

# How many programs run at a time.
lanes="${QUALM_TEST_LANES:-3}"

# programs_of BUILT: "FOLDER PROGRAM" of each test program that cargo's messages in BUILT name, those that wait longest first.
programs_of() {
  sed -n 's/.*"manifest_path":"\([^"]*\)\/Cargo\.toml".*"profile":{[^}]*"test":true}.*"executable":"\([^"]*\)".*/\1 \2/p' "$1" |
    awk '{ print ($2 ~ /\/(e2e_|wire|demo|commands|operator)[^\/]*$/ ? 0 : 1), $0 }' | sort -s -k1,1n | cut -d' ' -f2-
}

# run_program FOLDER PROGRAM: as cargo would, in the folder of its package; what it says is printed as one piece.
run_program() {
  local said outcome=0 begun=$SECONDS
  said="$(mktemp "$work/said-XXXXXX")"
  (cd "$1" && exec "$2") >"$said" 2>&1 || outcome=$?
  {
    flock 9
    echo
    echo "     Running $(basename "$2" | sed 's/-[0-9a-f]*$//') of $(basename "$1") ($((SECONDS - begun)) s)"
    cat "$said"
    [ "$outcome" -le 101 ] || echo "the program ended with $outcome"
  } 9>"$work/printing"
  rm -f "$said"
  return "$outcome"
}

# run_programs BUILT: runs them all, $lanes at a time; fails when one of them does.
run_programs() {
  local list="$work/programs"
  programs_of "$1" >"$list"
  [ -s "$list" ] || { echo "cargo named no test program" >&2; return 1; }
  export work
  export -f run_program
  xargs -P "$lanes" -L 1 bash -c 'run_program "$0" "$1"' <"$list"
}
