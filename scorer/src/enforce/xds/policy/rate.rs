//! The rate limit: a bucket of tokens a decision, in each proxy. Whose call it is has been found out by the RBAC filter in
//! front, by certificate and direct address; its mark is the key, so that nothing that a caller writes is believed.

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::RuntimeFractionalPercent,
            route::v3::{
                RateLimit,
                rate_limit::{Action, action},
            },
        },
        extensions::{
            common::ratelimit::v3::{LocalRateLimitDescriptor, rate_limit_descriptor::Entry},
            filters::http::local_ratelimit::v3::LocalRateLimit,
        },
        r#type::{
            metadata::v3::{
                MetadataKey,
                metadata_key::{PathSegment, path_segment::Segment},
            },
            v3::{FractionalPercent, TokenBucket, fractional_percent::DenominatorType},
        },
    },
    google::protobuf::{BoolValue, Duration, UInt32Value},
};

use super::{Leaf, Policies, STAT_PREFIX, THROTTLE_PREFIX, View};

/// Where RBAC filters leave what they have found.
const RBAC: &str = "envoy.filters.http.rbac";
/// Key of a descriptor's only entry.
const POLICY: &str = "policy";
/// Calls a minute of whom nothing is known.
const UNKNOWN_A_MINUTE: u32 = 12;
const MINUTE_S: u32 = 60;

pub(super) fn filter(policies: &Policies, view: &View) -> LocalRateLimit {
    let slots = policies.branches.values().flat_map(|branch| {
        let within = branch.addresses.values().map(|slot| slot.within(&branch.whole));
        [branch.whole.clone()].into_iter().chain(within)
    });
    let mut limits: Vec<Leaf> = slots.filter_map(|slot| slot.throttle(view).cloned()).collect();
    limits.sort_unstable();
    limits.dedup();
    let share = if limits.is_empty() { 0 } else { 100 };
    LocalRateLimit {
        stat_prefix: format!("{STAT_PREFIX}throttle"),
        // Whoever has no bucket of their own is not limited.
        token_bucket: Some(bucket(u32::MAX, u32::MAX, 1)),
        always_consume_default_token_bucket: Some(BoolValue { value: false }),
        filter_enabled: Some(percent(share)),
        filter_enforced: Some(percent(share)),
        rate_limits: vec![RateLimit { actions: vec![by_policy()], ..RateLimit::default() }],
        descriptors: limits.iter().map(descriptor).collect(),
        ..LocalRateLimit::default()
    }
}

fn descriptor(leaf: &Leaf) -> LocalRateLimitDescriptor {
    let (a_minute, at_once) = allowance(leaf);
    // Some at once, and then one after the other.
    let (calls, seconds) = match a_minute {
        calls if calls >= MINUTE_S => (calls.div_ceil(MINUTE_S), 1),
        calls => (1, MINUTE_S / calls),
    };
    LocalRateLimitDescriptor {
        entries: vec![Entry { key: POLICY.to_owned(), value: format!("{THROTTLE_PREFIX}{}", leaf.decision) }],
        token_bucket: Some(bucket(at_once, calls, seconds)),
        ..LocalRateLimitDescriptor::default()
    }
}

/// Calls a minute and at once of a limited subject.
pub(super) fn allowance(leaf: &Leaf) -> (u32, u32) {
    let a_minute = leaf.known.as_ref().map_or(UNKNOWN_A_MINUTE, |known| known.calls_a_minute.max(1));
    (a_minute, leaf.known.as_ref().map_or(a_minute, |known| known.at_once.max(a_minute)))
}

/// A bucket that holds `most` and gets `calls` every so many seconds.
fn bucket(most: u32, calls: u32, seconds: u32) -> TokenBucket {
    TokenBucket {
        max_tokens: most,
        tokens_per_fill: Some(UInt32Value { value: calls }),
        fill_interval: Some(Duration { seconds: seconds.into(), nanos: 0 }),
    }
}

/// The mark of the RBAC filter in front, where there is one.
fn by_policy() -> Action {
    let mark = PathSegment { segment: Some(Segment::Key(format!("{STAT_PREFIX}shadow_effective_policy_id"))) };
    let read = action::MetaData {
        descriptor_key: POLICY.to_owned(),
        metadata_key: Some(MetadataKey { key: RBAC.to_owned(), path: vec![mark] }),
        source: action::meta_data::Source::Dynamic.into(),
        skip_if_absent: true,
        ..action::MetaData::default()
    };
    Action { action_specifier: Some(action::ActionSpecifier::Metadata(read)) }
}

fn percent(numerator: u32) -> RuntimeFractionalPercent {
    let denominator = DenominatorType::Hundred.into();
    RuntimeFractionalPercent {
        default_value: Some(FractionalPercent { numerator, denominator }),
        runtime_key: String::new(),
    }
}
