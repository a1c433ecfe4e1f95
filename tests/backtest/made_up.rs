//! A small made-up log: twenty callers go about their business for two days, then one of them starts to scan.

/// Monday, 2026-01-05T00:00:00Z, in milliseconds.
pub(crate) const BEGIN: i64 = 1_767_571_200_000;
/// When the scan begins.
pub(crate) const SCAN: i64 = BEGIN + 46 * 3_600_000;
/// Who scans.
pub(crate) const SCANNER: &str = "svc-3";

/// How to read it.
pub(crate) const MAPPING: &str = r##"
format = "csv"
comment = "#"
time = { column = 0, format = "epoch_ms" }

[fields]
source = "{1}"
destination = "{2}"
operation = "{3}"
bytes_out = "{4}"
"##;

/// SplitMix64: numbers that are the same on every machine.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as i64
    }
}

/// The lines in the order of time; no two have the same.
pub(crate) fn lines() -> Vec<String> {
    let mut random = Numbers(7);
    let mut lines: Vec<(i64, String)> = Vec::new();
    for number in 0..30_000_i64 {
        let time = BEGIN + number * 5_760 + random.below(5_760);
        let source = random.below(20);
        // Now and then somebody has business elsewhere, or much of it: without that nothing is learned of chance.
        let destination = match random.below(150) {
            0 => 23 + random.below(400),
            _ => (source * 7 + random.below(4)) % 23,
        };
        let line = format!(
            "{time},svc-{source},svc-{destination},GET /things/{},{}",
            random.below(3),
            500 + random.below(4_500)
        );
        lines.push((time, line));
    }
    for number in 0..80_i64 {
        let time = SCAN + number * 5_760 + 1;
        lines.retain(|(at, _)| *at != time);
        lines.push((time, format!("{time},{SCANNER},stranger-{number},GET /admin,100")));
    }
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

/// The places of the lines in another order.
pub(crate) fn shuffled(count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    let mut random = Numbers(11);
    for end in (1..count).rev() {
        places.swap(end, random.below(end as i64 + 1) as usize);
    }
    places
}
