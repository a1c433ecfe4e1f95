//! Which part of a call Envoy's types of entries are about.

use qualm_model::event::Activity;

/// Which part of its stream or connection an entry of this type tells of. `None` for the middle of what a proxy sends
/// on: the entries of what it received say the same, and which of them belong together.
pub(super) fn activity_of(access_log_type: &str) -> Option<Activity> {
    Some(match access_log_type {
        "TcpConnectionEnd" | "DownstreamEnd" | "UdpSessionEnd" => Activity::Close,
        _ if access_log_type.starts_with("Upstream") && access_log_type != "UpstreamEnd" => return None,
        _ if access_log_type.ends_with("Periodic") => Activity::Traffic,
        _ if ["Start", "Connected", "Established"].iter().any(|end| access_log_type.ends_with(end)) => Activity::Open,
        _ => Activity::Whole,
    })
}
