//! Vector: `message`, and what it knows of the pod in `kubernetes`, as an object or flat (`kubernetes.pod_name`).

use super::{
    object::{Key, Place},
    passed::Kind,
};

pub(super) fn key(path: &[u8]) -> Option<Key> {
    Some(match path {
        b"message" => Key::Record,
        b"source_type" => Key::Sign(Kind::Vector),
        b"file" => Key::File,
        b"timestamp" => Key::Time(Kind::Vector),
        b"_partial" => Key::Unfinished,
        b"host" => Key::Place(Place::Host),
        b"kubernetes.pod_namespace" => Key::Place(Place::Namespace),
        b"kubernetes.pod_node_name" => Key::Place(Place::Node),
        b"kubernetes.pod_owner" => Key::Place(Place::Owner),
        b"kubernetes.pod_labels" => Key::Within,
        b"kubernetes.pod_labels.version"
        | b"kubernetes.pod_labels.app.kubernetes.io/version"
        | b"kubernetes.pod_labels.\"app.kubernetes.io/version\""
        | b"kubernetes.pod_labels.service.istio.io/canonical-revision" => Key::Place(Place::Version),
        _ => return None,
    })
}
