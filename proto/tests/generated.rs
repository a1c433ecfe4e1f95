//! Holds the checked-in code to the `.proto` files.

use std::{fs, path::Path};

#[test]
#[allow(clippy::disallowed_methods)] // A switch of the developer at the keyboard, not of the product.
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().unwrap();
    let sources = ["qualm/trust/v1/trust.proto", "qualm/operator/v1/operator.proto"];
    let files = protox::compile(sources, [root.join("proto")]).unwrap();
    tonic_prost_build::configure().out_dir(fresh.path()).compile_fds(files).unwrap();
    for entry in fs::read_dir(fresh.path()).unwrap() {
        let entry = entry.unwrap();
        let checked_in = root.join("src/generated").join(entry.file_name());
        let code = fs::read_to_string(entry.path()).unwrap();
        if std::env::var_os("QUALM_REGENERATE").is_some() {
            fs::write(&checked_in, &code).unwrap();
        }
        let current = fs::read_to_string(&checked_in).unwrap_or_default() == code;
        assert!(current, "{} is stale: QUALM_REGENERATE=1 cargo test -p qualm-proto", checked_in.display());
    }
}
