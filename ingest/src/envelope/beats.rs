//! Filebeat and Logstash: `message`, or `event.original`, with the fields of the Elastic common schema beside it.

use super::{
    object::{Key, Place},
    passed::Kind,
};

pub(super) fn key(path: &[u8]) -> Option<Key> {
    Some(match path {
        b"event.original" => Key::Record,
        b"@timestamp" => Key::Time(Kind::Beats),
        b"@version" | b"@metadata" | b"agent" | b"ecs" | b"input" => Key::Sign(Kind::Beats),
        b"event" | b"log.file" | b"orchestrator" | b"orchestrator.cluster" => Key::Within,
        b"kubernetes.pod"
        | b"kubernetes.node"
        | b"kubernetes.container"
        | b"kubernetes.deployment"
        | b"kubernetes.statefulset"
        | b"kubernetes.daemonset"
        | b"kubernetes.cronjob"
        | b"kubernetes.job"
        | b"kubernetes.replicaset" => Key::Within,
        b"log.file.path" => Key::File,
        b"host.name" => Key::Place(Place::Host),
        b"orchestrator.cluster.name" => Key::Place(Place::Cluster),
        b"kubernetes.namespace" => Key::Place(Place::Namespace),
        b"kubernetes.pod.name" => Key::Place(Place::Pod),
        b"kubernetes.pod.ip" => Key::Place(Place::PodIp),
        b"kubernetes.node.name" => Key::Place(Place::Node),
        b"kubernetes.container.name" => Key::Place(Place::Container),
        b"kubernetes.deployment.name"
        | b"kubernetes.statefulset.name"
        | b"kubernetes.daemonset.name"
        | b"kubernetes.cronjob.name"
        | b"kubernetes.job.name"
        | b"kubernetes.replicaset.name" => Key::Place(Place::Owner),
        _ => return None,
    })
}
