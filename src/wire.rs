//! `qualm wire`: prints what connects a mesh, a shipper or a topic to Qualm, and what takes it back. It applies nothing.
//!
//! # Layout
//! - this file: the targets, and how names are put into their texts
//! - `wire/<target>.*`: what is printed, one target a file, and `wire/<target>-remove.*` the way back
//! - [`access_log`]: the log format that Envoy and Istio have in common; [`envoy`]: what stands several times in a bootstrap

mod access_log;
mod envoy;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
    str::FromStr,
};

use anyhow::Result;
use clap::ValueEnum;

use crate::cli::WireArgs;

/// The topic of the access logs, unless told otherwise.
const TOPIC: &str = "mesh-access-logs";
/// Blocks within blocks: the log format in a log in a bootstrap.
const MAX_DEPTH: usize = 4;

/// What can be wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Istio's sidecars: log format, ALS, certificates, the filters by which Qualm denies, roles.
    Istio,
    /// Linkerd's access log and its shipper.
    Linkerd,
    /// A bootstrap for an Envoy on its own.
    Envoy,
    /// Vector as shipper to a Kafka topic.
    Vector,
    /// Fluent Bit as shipper to a Kafka topic.
    FluentBit,
    /// Topics, rights and quotas.
    Kafka,
    /// The right to see pods, and a token: for records that have but addresses.
    Kubernetes,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Back,
}

/// The Kubernetes namespace that Qualm runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace(String);

/// A word that cannot be a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no namespace; it has 1 to 63 lower-case letters, digits and `-`, and none of these at its ends")]
pub(crate) struct InvalidNamespace(String);

/// Runs the command.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn run(args: &WireArgs) -> Result<ExitCode> {
    let way = if args.remove { Way::Back } else { Way::In };
    io::stdout().write_all(args.target.text(way, &args.namespace).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

impl FromStr for Namespace {
    type Err = InvalidNamespace;

    fn from_str(word: &str) -> Result<Self, InvalidNamespace> {
        let is_inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let is_label = (1..=63).contains(&word.len())
            && word.bytes().all(is_inner)
            && !word.starts_with('-')
            && !word.ends_with('-');
        if is_label { Ok(Self(word.to_owned())) } else { Err(InvalidNamespace(word.to_owned())) }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Namespace {
    /// What names outside of the namespace begin with, so that two Qualms in one mesh are kept apart.
    fn prefix(&self) -> String {
        if self.0.starts_with("qualm") { self.0.clone() } else { format!("qualm-{}", self.0) }
    }
}

impl Target {
    /// What is printed.
    fn text(self, way: Way, namespace: &Namespace) -> String {
        let prefix = namespace.prefix();
        let texts = [
            ("namespace", namespace.0.clone()),
            ("host", format!("qualm.{namespace}.svc.cluster.local")),
            ("id", prefix.replace('-', "_")),
            ("prefix", prefix),
            ("topic", TOPIC.to_owned()),
            ("command", self.word().to_owned()),
            ("title", if self == Self::Linkerd { "Linkerd" } else { "Fluent Bit" }.to_owned()),
            ("container", if self == Self::Linkerd { "linkerd-proxy" } else { "istio-proxy" }.to_owned()),
            ("resources", if self == Self::Vector { "pods, namespaces, nodes" } else { "pods, namespaces" }.to_owned()),
        ];
        let mut text = self.template(way).to_owned();
        for _ in 0..MAX_DEPTH {
            text = text.lines().map(|line| self.with_block(line, way)).collect();
        }
        for (name, value) in texts {
            text = text.replace(&format!("@{name}@"), &value);
        }
        text
    }

    fn template(self, way: Way) -> &'static str {
        match (self, way) {
            (Self::Istio, Way::In) => include_str!("wire/istio.yaml"),
            (Self::Istio, Way::Back) => include_str!("wire/istio-remove.sh"),
            (Self::Envoy, Way::In) => include_str!("wire/envoy.yaml"),
            (Self::Envoy, Way::Back) => include_str!("wire/envoy-remove.sh"),
            (Self::Vector, Way::In) => include_str!("wire/vector.toml"),
            (Self::Vector, Way::Back) => include_str!("wire/vector-remove.sh"),
            (Self::FluentBit | Self::Linkerd, Way::In) => include_str!("wire/fluent-bit.yaml"),
            (Self::FluentBit | Self::Linkerd, Way::Back) => include_str!("wire/fluent-bit-remove.sh"),
            (Self::Kafka, Way::In) => include_str!("wire/kafka.sh"),
            (Self::Kafka, Way::Back) => include_str!("wire/kafka-remove.sh"),
            (Self::Kubernetes, Way::In) => include_str!("wire/kubernetes.yaml"),
            (Self::Kubernetes, Way::Back) => include_str!("wire/kubernetes-remove.sh"),
        }
    }

    /// A line of a template, or the block that it is the place of, each line of it after what stands before the place.
    fn with_block(self, line: &str, way: Way) -> String {
        let place = line.split_once('@').and_then(|(margin, rest)| Some((margin, rest.strip_suffix('@')?)));
        let Some((margin, block)) = place.and_then(|(margin, name)| Some((margin, self.block(name, way)?))) else {
            return format!("{line}\n");
        };
        block.lines().map(|line| format!("{}\n", format!("{margin}{line}").trim_end())).collect()
    }

    fn block(self, name: &str, way: Way) -> Option<String> {
        let text = match name {
            "access_log" => return Some(access_log::yaml()),
            "inspector" => envoy::INSPECTOR,
            "downstream_tls" => envoy::DOWNSTREAM_TLS,
            "file_log" => envoy::FILE_LOG,
            "als" => envoy::ALS,
            "ecds" => envoy::ECDS,
            "role" => include_str!("wire/shipper-role.yaml"),
            "intro" => match (self, way) {
                (Self::Linkerd, Way::In) => include_str!("wire/linkerd-intro.txt"),
                (Self::Linkerd, Way::Back) => include_str!("wire/linkerd-remove.txt"),
                (_, Way::In) => "For Linkerd: `qualm wire linkerd`.",
                (_, Way::Back) => "In this order:",
            },
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// As it is typed.
    fn word(self) -> &'static str {
        match self {
            Self::Istio => "istio",
            Self::Linkerd => "linkerd",
            Self::Envoy => "envoy",
            Self::Vector => "vector",
            Self::FluentBit => "fluent-bit",
            Self::Kafka => "kafka",
            Self::Kubernetes => "kubernetes",
        }
    }
}
