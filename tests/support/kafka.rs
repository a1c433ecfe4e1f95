//! A real Kafka: one process that is broker and controller (KRaft), plaintext on loopback.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{DeliveryFuture, FutureProducer, FutureRecord},
    types::RDKafkaErrorCode,
};

use super::{
    parts::Part,
    ports,
    process::Process,
    wait::{PATIENCE, until},
};

/// A cluster id as `kafka-storage random-uuid` makes them: 16 bytes, URL-safe base64.
const CLUSTER_ID: &str = "cXVhbG0tdGVzdHMta2Fmaw";

/// Kafka's scripts, and what they run.
const TOOLS: [(&str, &str); 3] = [
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-configs.sh", "kafka.admin.ConfigCommand"),
    ("kafka-acls.sh", "org.apache.kafka.tools.AclCommand"),
];

/// How long librdkafka may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What brokers show at their TLS listener, and whom they believe: files in PEM, the key before its certificate.
pub(crate) struct Shown<'a> {
    pub(crate) identity: &'a Path,
    pub(crate) roots: &'a Path,
}

pub(crate) struct Kafka {
    folder: PathBuf,
    jars: String,
    port: u16,
    process: Process,
}

impl Kafka {
    /// Formats its storage under `folder`, starts it, and waits until it answers.
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_with(folder, |_, _| String::new())
    }

    /// The same with an authorizer, before whom everybody here may do everything: rights can be given and read.
    pub(crate) fn start_guarded(folder: &Path) -> Self {
        let guard = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                     super.users=User:ANONYMOUS\n";
        Self::start_with(folder, |_, _| guard.to_owned())
    }

    /// The same with a TLS listener at `port` beside the plain one: clients are known by the name in their certificates.
    #[allow(dead_code, reason = "only what speaks to brokers over TLS needs it")]
    pub(crate) fn start_secured(folder: &Path, port: u16, shown: &Shown<'_>) -> Self {
        let (identity, roots) = (shown.identity.display(), shown.roots.display());
        let settings = |plain: u16, controller: u16| {
            format!(
                "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                 super.users=User:ANONYMOUS\n\
                 listeners=PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SSL://127.0.0.1:{port}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SSL:SSL,CONTROLLER:PLAINTEXT\n\
                 ssl.client.auth=required\n\
                 ssl.keystore.type=PEM\nssl.keystore.location={identity}\n\
                 ssl.truststore.type=PEM\nssl.truststore.location={roots}\n\
                 ssl.principal.mapping.rules=RULE:^CN=([a-z-]+).*$/$1/\n"
            )
        };
        Self::start_with(folder, settings)
    }

    /// Everything that it has written to its log.
    #[allow(dead_code, reason = "only what asks its authorizer's log needs it")]
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("kafka.log")).unwrap_or_default()
    }

    /// Puts Kafka's own tools, under the names of its scripts, into a folder and says where.
    pub(crate) fn tools(&self) -> PathBuf {
        let folder = self.folder.join("bin");
        fs::create_dir_all(&folder).expect("the test's folder can be written to");
        for (script, class) in TOOLS {
            let file = folder.join(script);
            let java = "exec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1";
            let text = format!("#!/bin/sh\n{java} -cp '{}' {class} \"$@\"\n", self.jars);
            fs::write(&file, text).expect("the test's folder can be written to");
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&file, mode).expect("our own file can be made executable");
        }
        folder
    }

    /// `settings` are made of the ports of the plain listener and the controller.
    fn start_with(folder: &Path, settings: impl FnOnce(u16, u16) -> String) -> Self {
        let part = Part::Kafka.folder().expect("parts::present was asked first");
        let jars = part.join("libs").join("*").display().to_string();
        let folder = folder.join("kafka");
        fs::create_dir_all(&folder).expect("the test's folder can be written to");
        let [port, controller] = [(); 2].map(|()| ports::free());
        write_properties(&folder, port, controller, &settings(port, controller));
        format_storage(&jars, &folder);
        let process = spawn(&jars, &folder);
        let mut kafka = Self { folder, jars, port, process };
        kafka.wait_until_ready();
        kafka
    }

    /// What clients connect to.
    pub(crate) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Creates a topic and waits until every partition has a leader.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().expect("the settings are valid");
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(ANSWER));
        let outcomes = block_on(admin.create_topics([&topic], &options)).expect("the broker answers");
        for outcome in outcomes {
            outcome.unwrap_or_else(|(topic, error)| panic!("{topic}: {error}"));
        }
        until(&format!("{name} has {partitions} partitions with leaders"), PATIENCE, || {
            let metadata = admin.inner().fetch_metadata(Some(name), ANSWER).ok()?;
            let found = metadata.topics().first()?.partitions();
            let led = found.iter().filter(|partition| partition.leader() >= 0).count();
            (i32::try_from(led) == Ok(partitions)).then_some(())
        });
    }

    /// Appends records and waits until each is acknowledged. `partition: None` lets librdkafka choose, by the key.
    pub(crate) fn produce<'a>(
        &self,
        topic: &str,
        partition: Option<i32>,
        records: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) {
        let producer: FutureProducer = self.client().create().expect("the settings are valid");
        block_on(async {
            let mut sent = Vec::new();
            for (key, value) in records {
                let mut record = FutureRecord::to(topic).key(key).payload(value);
                record.partition = partition;
                sent.push(enqueue(&producer, record).await);
            }
            for delivery in sent {
                let outcome = delivery.await.expect("the producer lives until all is delivered");
                outcome.unwrap_or_else(|(error, _)| panic!("{topic}: {error}"));
            }
        });
    }

    /// Every record of a topic now, partition by partition.
    pub(crate) fn records(&self, topic: &str) -> Vec<Vec<u8>> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "qualm-tests")
            .set("enable.auto.commit", "false")
            .create()
            .expect("the settings are valid");
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER).expect("the broker answers");
        let partitions = metadata.topics().first().expect("the topic asked for").partitions();
        let mut assignment = TopicPartitionList::new();
        let mut expected = 0;
        for partition in partitions {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), ANSWER).expect("the broker answers");
            expected += usize::try_from(high - low).expect("a watermark never goes back");
            assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("a valid offset");
        }
        consumer.assign(&assignment).expect("the partitions exist");
        let mut records = Vec::new();
        until(&format!("{expected} records of {topic} are read"), PATIENCE, || {
            while records.len() < expected {
                let message = consumer.poll(Duration::from_millis(100))?.expect("the broker answers");
                records.push(message.payload().unwrap_or_default().to_vec());
            }
            Some(())
        });
        records
    }

    /// The consumer groups that it knows.
    pub(crate) fn groups(&self) -> Vec<String> {
        let consumer: BaseConsumer = self.client().create().expect("the settings are valid");
        let groups = consumer.fetch_group_list(None, ANSWER).expect("the broker answers");
        groups.groups().iter().map(|group| group.name().to_owned()).collect()
    }

    /// Stops it as an upgrade does (SIGTERM); its records stay on disk.
    pub(crate) fn stop(&mut self) {
        self.process.terminate();
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port with what is on disk.
    pub(crate) fn start_again(&mut self) {
        self.process = spawn(&self.jars, &self.folder);
        self.wait_until_ready();
    }

    /// Settings for a client of one's own.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("broker.address.family", "v4");
        config
    }

    fn wait_until_ready(&mut self) {
        let consumer: BaseConsumer = self.client().create().expect("the settings are valid");
        self.process.wait_until("answers", PATIENCE, || {
            consumer.fetch_metadata(None, Duration::from_secs(1)).is_ok_and(|metadata| !metadata.brokers().is_empty())
        });
    }
}

/// Hands a record to librdkafka; while its queue is full, waits.
async fn enqueue(producer: &FutureProducer, mut record: FutureRecord<'_, str, [u8]>) -> DeliveryFuture {
    loop {
        match producer.send_result(record) {
            Ok(delivery) => return delivery,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), unsent)) => record = unsent,
            Err((error, record)) => panic!("{}: {error}", record.topic),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn write_properties(folder: &Path, port: u16, controller: u16, settings: &str) {
    let logs = folder.join("logs");
    let properties = format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\n\
         auto.create.topics.enable=false\n\
         offsets.topic.num.partitions=3\n\
         offsets.topic.replication.factor=1\n\
         transaction.state.log.num.partitions=3\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         share.coordinator.state.topic.num.partitions=3\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         {settings}",
        logs.display()
    );
    fs::write(folder.join("server.properties"), properties).expect("the test's folder can be written to");
}

fn format_storage(jars: &str, folder: &Path) {
    let mut command = java(jars);
    command.args(["kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c"]);
    command.arg(folder.join("server.properties"));
    let mut format = Process::spawn("kafka.tools.StorageTool", command, &folder.join("format.log"));
    let status = until("Kafka's storage is formatted", PATIENCE, || format.ended());
    assert!(status.success(), "Kafka's storage could not be formatted:\n{}", format.output());
}

fn spawn(jars: &str, folder: &Path) -> Process {
    let mut command = java(jars);
    command.arg("kafka.Kafka").arg(folder.join("server.properties"));
    Process::spawn("kafka", command, &folder.join("kafka.log"))
}

fn java(jars: &str) -> std::process::Command {
    let mut command = Process::command(Path::new("java"));
    // A quick start matters here, not the speed after an hour.
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", jars]);
    command
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(future)
}
