//! Fluent Bit and Fluentd: the line as `log` or `message`, or its keys lifted into the record (`Merge_Log`), or below
//! `log_processed`; and `kubernetes`, an object that their filter adds.

use super::{
    object::{Key, Place},
    passed::Kind,
};

pub(super) fn key(path: &[u8]) -> Option<Key> {
    Some(match path {
        b"kubernetes" => Key::Metadata,
        b"log_processed" => Key::Nested,
        b"logtag" | b"_p" => Key::Tag,
        // Docker's own driver for Fluentd.
        b"partial_message" => Key::Unfinished,
        b"partial_last" => Key::Last,
        b"docker" | b"container_id" => Key::Sign(Kind::Fluent),
        // What `Path_Key` and the tag's key are called most.
        b"tag" | b"path" | b"filename" | b"filepath" | b"file_path" | b"log_path" | b"tailed_path" => {
            Key::ContainerFile
        }
        b"container_name" => Key::Place(Place::Container),
        b"kubernetes.pod_name" => Key::Place(Place::Pod),
        b"kubernetes.namespace_name" => Key::Place(Place::Namespace),
        b"kubernetes.pod_ip" => Key::Place(Place::PodIp),
        b"kubernetes.host" => Key::Place(Place::Node),
        b"kubernetes.container_name" => Key::Place(Place::Container),
        b"kubernetes.cluster_name" | b"kubernetes.cluster" | b"cluster" | b"cluster_name" => Key::Place(Place::Cluster),
        b"kubernetes.labels" => Key::Within,
        // Some outputs write `_` for what a key of theirs must not have.
        b"kubernetes.labels.version"
        | b"kubernetes.labels.app.kubernetes.io/version"
        | b"kubernetes.labels.app_kubernetes_io/version"
        | b"kubernetes.labels.app_kubernetes_io_version"
        | b"kubernetes.labels.service.istio.io/canonical-revision"
        | b"kubernetes.labels.service_istio_io/canonical-revision" => Key::Place(Place::Version),
        _ => return None,
    })
}
