//! The lines of one cluster, access log and issuers' logs together, in order of their arrival.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use anyhow::{Context as _, Result};
use qualm_datasets::{
    AccessLog, AuthLog, AuthRecord, AuthTrail, Envelope, Millis, Report, Reports, Scenario, envelope::Place,
    istio::Side,
};

use super::{
    args::LogFormat,
    order::{Cluster, Order},
};

/// One record on its way out.
pub(super) struct Line<'a> {
    /// When it arrives, where it goes by time.
    pub(super) arrival: Millis,
    /// The cluster it is of, where there are several.
    pub(super) cluster: Option<&'static str>,
    /// The issuer that wrote it; `None` is the access log.
    pub(super) issuer: Option<AuthLog>,
    /// Who wrote it: records of one writer stay in order.
    pub(super) writer: &'a str,
    /// Whether an attacker caused it.
    pub(super) is_attack: bool,
    /// The record, several lines where its log has several.
    pub(super) bytes: &'a [u8],
}

/// Where the lines of a cluster come from.
pub(super) struct Feed {
    scenario: Arc<Scenario>,
    name: Option<&'static str>,
    reports: Reports,
    next: Option<Report>,
    trail: Option<AuthTrail>,
    /// What issuers have logged and what is not due yet, by arrival.
    told: BinaryHeap<Reverse<(Millis, u64)>>,
    records: std::collections::BTreeMap<u64, AuthRecord>,
    numbered: u64,
    auth_delay: i64,
    format: LogFormat,
    envelope: Envelope,
    bare: Vec<u8>,
    wrapped: Vec<u8>,
}

impl Feed {
    /// The feed of a cluster.
    pub(super) fn new(order: &Order, cluster: &Cluster) -> Self {
        let scenario = Arc::clone(&cluster.scenario);
        let mut feed = Self {
            name: cluster.name,
            reports: Reports::new(Arc::clone(&scenario), order.dirt),
            next: None,
            trail: order.auth.then(|| AuthTrail::new(Arc::clone(&scenario))),
            told: BinaryHeap::new(),
            records: std::collections::BTreeMap::new(),
            numbered: 0,
            auth_delay: order.auth_delay,
            format: order.format,
            envelope: order.envelope,
            bare: Vec::new(),
            wrapped: Vec::new(),
            scenario,
        };
        feed.advance();
        feed
    }

    /// When its next line arrives.
    pub(super) fn next_arrival(&self) -> Option<Millis> {
        let told = self.told.peek().map(|Reverse((arrival, _))| *arrival);
        match (self.next.map(|report| report.arrival), told) {
            (Some(report), Some(told)) => Some(report.min(told)),
            (report, told) => report.or(told),
        }
    }

    /// The next line.
    pub(super) fn line(&mut self) -> Result<Line<'_>> {
        let due = self.told.peek().map(|Reverse((arrival, _))| *arrival);
        let report = self.next.filter(|report| due.is_none_or(|due| report.arrival < due));
        match report {
            Some(report) => {
                self.advance();
                Ok(self.access_line(&report))
            }
            None => self.auth_line(),
        }
    }

    fn advance(&mut self) {
        let mut fresh = Vec::new();
        let trail = &mut self.trail;
        self.next = self.reports.next_with(|call| {
            if let Some(trail) = trail {
                trail.follow(call, &mut fresh);
            }
        });
        if self.next.is_none() {
            // Once at the end, and then never again.
            if let Some(mut trail) = self.trail.take() {
                trail.finish(&mut fresh);
            }
        }
        for record in fresh {
            self.numbered += 1;
            self.told.push(Reverse((record.at + self.auth_delay, self.numbered)));
            self.records.insert(self.numbered, record);
        }
    }

    fn access_line(&mut self, report: &Report) -> Line<'_> {
        let mesh = self.scenario.mesh();
        let log = AccessLog::with_validity(mesh);
        self.bare.clear();
        match self.format {
            LogFormat::IstioJson => log.push_report(report, &mut self.bare),
            LogFormat::IstioText => log.push_text(report, &mut self.bare),
        }
        let pod = if report.side == Side::Inbound { report.call.destination } else { report.call.source };
        let time = report.call.report();
        let place = Place { mesh, pod: Some(pod), container: "istio-proxy", cluster: self.name, time };
        self.wrapped.clear();
        self.envelope.push(&place, &self.bare, &mut self.wrapped);
        self.wrapped.push(b'\n');
        Line {
            arrival: report.arrival,
            cluster: self.name,
            issuer: None,
            writer: &mesh.instance(pod).pod,
            is_attack: report.call.is_attack(),
            bytes: &self.wrapped,
        }
    }

    fn auth_line(&mut self) -> Result<Line<'_>> {
        let Reverse((arrival, number)) = self.told.pop().context("a line is asked for only where there is one")?;
        let record = self.records.remove(&number).context("every number has its record")?;
        let mesh = self.scenario.mesh();
        self.bare.clear();
        record.push(mesh, &mut self.bare);
        let place = Place { mesh, pod: None, container: record.log.format(), cluster: self.name, time: record.at };
        self.wrapped.clear();
        for line in self.bare.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            self.envelope.push(&place, line, &mut self.wrapped);
            self.wrapped.push(b'\n');
        }
        Ok(Line {
            arrival,
            cluster: self.name,
            issuer: Some(record.log),
            writer: record.log.format(),
            is_attack: matches!(record.cause, qualm_datasets::Cause::Attack(_)),
            bytes: &self.wrapped,
        })
    }
}
