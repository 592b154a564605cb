//! `iceoryx2`: a publisher here, and a subscriber in another program, because its ports do not work in a process that is
//! forked.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bench::Result;
use iceoryx2::node::Node;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

use crate::channels::{Channel, ends};

/// The name of this program's receiver, as its first argument.
pub(crate) const RECEIVER: &str = "--iceoryx2-receiver";

type Service = PortFactory<ipc::Service, [u8], ()>;
type Port = Publisher<ipc::Service, [u8], ()>;

/// Opens the service for messages of this size. Everything that it creates in the file system has `name` in its path, so
/// that [`Started`] can remove what stays.
fn service(name: &str, depth: usize) -> Result<(Node<ipc::Service>, Service)> {
    set_log_level(LogLevel::Fatal);
    let mut config = Config::default();
    config.global.prefix = FileName::new(name.as_bytes())?;
    let root = std::env::temp_dir().join(name);
    let root = root.to_str().ok_or("the path is no text")?;
    config.global.set_root_path(&Path::new(root.as_bytes())?);
    let node = NodeBuilder::new()
        .config(&config)
        .create::<ipc::Service>()?;
    let service = node
        .service_builder(&name.try_into()?)
        .publish_subscribe::<[u8]>()
        .enable_safe_overflow(false)
        .subscriber_max_buffer_size(depth)
        .open_or_create()?;
    Ok((node, service))
}

/// Receives batches of messages until the standard input ends, and reports each batch by a byte. It polls: this kind of
/// service has no wait.
pub(crate) fn receive(name: &str, depth: usize, count: u32) -> Result {
    let (_node, service) = service(name, depth)?;
    let subscriber = service.subscriber_builder().create()?;
    let mut report = std::io::stdout();
    report.write_all(b"\n")?;
    report.flush()?;
    let mut order = [0];
    while std::io::stdin().read(&mut order)? == 1 {
        for _ in 0..count {
            let message = loop {
                if let Some(message) = subscriber.receive()? {
                    break message;
                }
                std::hint::spin_loop();
            };
            black_box(ends(message.payload()));
        }
        report.write_all(&[1])?;
        report.flush()?;
    }
    Ok(())
}

/// The sending side, which starts when it is first used: after the fork of the receiver of the other channels.
pub(crate) struct Iox {
    size: usize,
    depth: usize,
    count: u32,
    started: Option<Started>,
}

struct Started {
    name: String,
    port: Port,
    service: Service,
    node: Node<ipc::Service>,
    child: Child,
    orders: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
}

impl Iox {
    /// Takes the size of a message, how many can be on the way, and how many a batch has.
    pub(crate) fn new(size: usize, depth: usize, count: u32) -> Self {
        Self {
            size,
            depth,
            count,
            started: None,
        }
    }

    fn started(&mut self) -> Result<&mut Started> {
        if self.started.is_none() {
            self.started = Some(Started::new(self.size, self.depth, self.count)?);
        }
        self.started
            .as_mut()
            .ok_or_else(|| "it is not started".into())
    }
}

impl Started {
    fn new(size: usize, depth: usize, count: u32) -> Result<Self> {
        let name = format!("bench-{}-{size}", std::process::id());
        let (node, service) = service(&name, depth)?;
        let port = service
            .publisher_builder()
            .initial_max_slice_len(size)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()?;
        let mut child = Command::new(std::env::current_exe()?)
            .args([RECEIVER, &name, &depth.to_string(), &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut reports = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        reports.read_line(&mut String::new())?;
        port.update_connections()?;
        Ok(Self {
            name,
            port,
            service,
            node,
            orders: child.stdin.take(),
            child,
            reports,
        })
    }
}

impl Started {
    /// Ends the receiver, and removes the files that `iceoryx2` leaves.
    fn end(self) -> Result {
        let Self {
            name,
            port,
            service,
            node,
            mut child,
            orders,
            ..
        } = self;
        drop(orders);
        child.wait()?;
        drop((port, service, node));
        std::fs::remove_dir_all(std::env::temp_dir().join(&name))?;
        for entry in std::fs::read_dir("/dev/shm")? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(&name) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Iox {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.started.take().map(Started::end) {
            eprintln!("iceoryx2 leaves files: {error}");
        }
    }
}

impl Channel for Iox {
    fn begin(&mut self) -> Result {
        let orders = self.started()?.orders.as_mut().ok_or("no pipe")?;
        Ok(orders.write_all(&[1])?)
    }

    fn send(&mut self, payload: &[u8]) -> Result {
        let sample = self.started()?.port.loan_slice_uninit(payload.len())?;
        sample.write_from_slice(payload).send()?;
        Ok(())
    }

    /// The forked child has nothing to receive.
    fn receive(&mut self) -> Result<u8> {
        Ok(0)
    }

    fn end(&mut self) -> Result {
        Ok(self.started()?.reports.read_exact(&mut [0])?)
    }
}
