//! A real schema registry: Apicurio, which has the interface of Confluent's. It keeps schemas in memory alone; the same
//! ones in the same order have the same ids again.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use super::{parts::Part, ports, process::Process, wait::PATIENCE};

pub(crate) struct SchemaRegistry {
    port: u16,
    process: Process,
}

impl SchemaRegistry {
    /// Starts it with its log under `folder`, and waits until it answers.
    pub(crate) fn start(folder: &Path) -> Self {
        let port = ports::free();
        let mut registry = Self { port, process: spawn(port, folder) };
        registry.wait_until_ready();
        registry
    }

    /// What `url` is to be.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.port)
    }

    /// Registers a schema; its id.
    pub(crate) fn register(&self, subject: &str, kind: &str, schema: &str, references: &Value) -> u32 {
        let body = json!({ "schemaType": kind, "schema": schema, "references": references });
        let mut response = ureq::post(format!("{}/subjects/{subject}/versions", self.url()))
            .header("content-type", "application/vnd.schemaregistry.v1+json")
            .send(body.to_string())
            .unwrap_or_else(|error| panic!("{subject}: {error}"));
        let text = response.body_mut().read_to_string().expect("an answer");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        u32::try_from(answer["id"].as_u64().expect("an id")).expect("four bytes")
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again at the same port, empty.
    pub(crate) fn start_again(&mut self, folder: &Path) {
        self.process = spawn(self.port, folder);
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let types = format!("{}/schemas/types", self.url());
        let ask = || ureq::get(&types).config().timeout_global(Some(Duration::from_secs(2))).build().call();
        self.process.wait_until("answers", PATIENCE, || ask().is_ok());
    }
}

fn spawn(port: u16, folder: &Path) -> Process {
    let part = Part::Apicurio.folder().expect("parts::present was asked first");
    let jar = part.join(format!("apicurio-registry-app-{}-runner.jar", Part::Apicurio.version()));
    let mut command = Process::command(Path::new("java"));
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.args([format!("-Dquarkus.http.port={port}"), "-Dquarkus.http.host=127.0.0.1".to_owned()]);
    command.arg("-jar").arg(jar);
    Process::spawn("apicurio", command, &folder.join("apicurio.log"))
}
