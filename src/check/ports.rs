//! Certificates, who is listed, and whether the ports can be had.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use qualm_model::time::{Span, Timestamp};

use super::Findings;
use crate::{
    config::Config,
    listen::{ListenConfig, Listener},
    run::premises::expired,
};

pub(super) fn check(config: &Config, running: bool, now: Timestamp, found: &mut Findings) {
    let listen = &config.listen;
    match Listener::prepare(listen) {
        Err(error) => found.fail("listen", error.to_string()),
        Ok(None) => {
            found.warn("listen", "no port: nobody can enforce, verdicts are only told as alerts; set `address`");
        }
        Ok(Some(listener)) => {
            match listener.identity() {
                Some(identity) => certificate(identity.expires(), now, found),
                None => found.warn("listen", "plaintext_loopback: whoever is on this machine may report and enforce"),
            }
            roles(listen, found);
        }
    }
    if let Some(address) = listen.address {
        port("listen", address, running, found);
    }
    port("observe", config.observe.address, running, found);
    if !config.observe.address.ip().is_loopback() {
        found.warn(
            "observe",
            format!("{} is no loopback address, and the page has no authentication", config.observe.address),
        );
    }
    if config.observe.connections == 0 {
        found.fail("observe", "`connections` must be at least 1");
    }
}

fn certificate(expires: Timestamp, now: Timestamp, found: &mut Findings) {
    let left = expires - now;
    let hours = left.as_seconds() / 3600.0;
    if let Some(expired) = expired(expires, now) {
        found.fail("listen", expired);
    } else if left < Span::HOUR {
        found.warn(
            "listen",
            format!("the certificate expires in {:.0} min; its files are watched, is it being renewed?", hours * 60.0),
        );
    } else {
        found.ok("listen", format!("certificate, key and client roots fit, {hours:.0} h left"));
    }
}

fn roles(listen: &ListenConfig, found: &mut Findings) {
    if listen.plaintext_loopback {
        return;
    }
    let lists = [
        ("reporters", listen.reporters.len(), "nobody may send telemetry to the port"),
        ("enforcement_points", listen.enforcement_points.len(), "no Envoy may receive policies"),
        ("subscribers", listen.subscribers.len(), "nobody may subscribe to the trust stream"),
    ];
    let people = [&listen.viewers, &listen.announcers, &listen.operators, &listen.approvers, &listen.admins]
        .map(|list| list.len());
    let [_, acting @ ..] = people;
    if acting.iter().sum::<usize>() == 0 {
        found.warn(
            "listen",
            "`operators`, `approvers` and `admins` are empty: nobody can quarantine, lift or pause by hand".to_owned(),
        );
    } else {
        let [viewers, announcers, operators, approvers, admins] = people;
        let listed = format!(
            "viewers: {viewers}, announcers: {announcers}, operators: {operators}, approvers: {approvers}, admins: {admins} listed"
        );
        found.ok("listen", listed);
    }
    for (key, listed, otherwise) in lists {
        match listed {
            0 => found.warn("listen", format!("`{key}` is empty: {otherwise}")),
            _ => found.ok("listen", format!("{key}: {listed} listed")),
        }
    }
}

fn port(section: &'static str, address: SocketAddr, running: bool, found: &mut Findings) {
    match TcpListener::bind(address) {
        Ok(_) if running && address.port() != 0 => {
            found.warn(
                section,
                format!("{address} is free although an instance is running: it uses another configuration"),
            );
        }
        Ok(_) => found.ok(section, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && running => {
            found.ok(section, format!("{address} is taken, and an instance is running on this state directory"));
        }
        Err(error) => {
            found.fail(section, format!("{address}: {error}; choose another port, or end the program that has it"));
        }
    }
}
