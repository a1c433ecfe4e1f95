//! Every envelope, around every format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qualm_ingest::envelope::Envelope;

fuzz_target!(|input: &[u8]| qualm_ingest_fuzz::read(input, Envelope::Auto));
