//! The binary.

use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};

use crate::client::{exchange, query, read, run, write};

pub(crate) const MANIFEST: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1]
  ports: [{name: http, port: 80, protocol: TCP}]
";

/// A directory that goes when the test does.
pub(crate) struct Directory(pub(crate) std::path::PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fairlead-dns-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A process that goes when the test does.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO_BIN_EXE_fairlead-dns").expect("`cargo test` sets it"));
    command.env_remove("RUST_LOG").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn ends(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// An address that nobody else takes: only this process has it, and its port is none that the kernel gives out.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let [.., a, b] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 53, a, b], NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// Where a process shows itself.
pub(crate) struct Places(pub(crate) [String; 3]);

impl Places {
    pub(crate) fn new() -> Self {
        Self([(); 3].map(|()| free_address().to_string()))
    }

    pub(crate) fn args(&self) -> [&str; 6] {
        let Self([health, ready, metrics]) = self;
        ["--health-bind", health, "--ready-bind", ready, "--metrics-bind", metrics]
    }
}

/// Status and body of what a place says about a path, or nothing when nobody is there.
pub(crate) fn get(place: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = std::net::TcpStream::connect(place).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

pub(crate) fn wait_for(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !so() {
        assert!(Instant::now() < deadline, "it is still not so that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Asks over UDP; nothing when nobody listens, or no answer comes.
pub(crate) fn udp(address: SocketAddr, question: &'static str) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.connect(address).unwrap();
    socket.send(&query(question)).unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).ok()?;
    Message::from_vec(&buffer[..length]).ok()
}

#[test]
fn health_readiness_and_metrics_are_shown_and_an_end_loses_nothing() {
    let directory = Directory::new("observed");
    let objects = directory.0.join("objects");
    let (address, places) = (free_address(), Places::new());
    let listen = address.to_string();
    let mut args = vec!["--objects", objects.to_str().unwrap(), "--listen", &listen, "--resolv-conf", "/nonexistent"];
    args.extend(places.args());
    // Longer than a busy machine stops.
    args.extend(["--lameduck", "12"]);
    let mut running = Running(command(&args).spawn().unwrap());
    let Places([health, ready, metrics]) = &places;
    wait_for("the process is healthy", || get(health, "/health") == Some((200, "OK".to_owned())));
    wait_for("what is missing is said", || {
        get(ready, "/ready").is_some_and(|(status, why)| status == 503 && why.contains("not complete"))
    });
    std::fs::create_dir(&objects).unwrap();
    std::fs::write(objects.join("shop.yaml"), MANIFEST).unwrap();
    wait_for("the server is ready", || get(ready, "/ready") == Some((200, "OK".to_owned())));
    assert_eq!(get(health, "/nothing").unwrap().0, 404);

    for question in ["web.shop.svc.cluster.local A", "no.shop.svc.cluster.local AAAA", "www.example.org A"] {
        udp(address, question).unwrap();
    }
    run(async {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        write(&mut stream, &query("web.shop.svc.cluster.local SRV")).await;
        read(&mut stream).await;
    });
    let server = format!("dns://{address}");
    let line = |name: &str, more: &[(&str, &str)], value: &str| {
        let mut labels = vec![("server", server.as_str()), ("view", ""), ("zone", ".")];
        labels.extend(more);
        labels.sort_by_key(|(name, _)| (*name == "le", *name));
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        format!("\ncoredns_{name}{{{}}} {value}", labels.join(","))
    };
    // The time of a response is counted when it has gone.
    let counted = line("dns_request_duration_seconds_count", &[], "4\n");
    wait_for("all responses are counted", || get(metrics, "/metrics").is_some_and(|(_, text)| text.contains(&counted)));
    let (_, text) = get(metrics, "/metrics").unwrap();
    let request = |proto, kind| [("proto", proto), ("family", "1"), ("type", kind)];
    for line in [
        line("dns_requests_total", &request("udp", "A"), "2\n"),
        line("dns_requests_total", &request("udp", "AAAA"), "1\n"),
        line("dns_requests_total", &request("tcp", "SRV"), "1\n"),
        line("dns_responses_total", &[("rcode", "NXDOMAIN"), ("plugin", "kubernetes")], "1\n"),
        line("dns_responses_total", &[("rcode", "REFUSED"), ("plugin", "")], "1\n"),
        line("dns_request_duration_seconds_bucket", &[("le", "0.00025")], ""),
        line("dns_request_duration_seconds_bucket", &[("le", "8.192")], "4\n"),
        line("dns_request_duration_seconds_count", &[], "4\n"),
        line("dns_request_size_bytes_bucket", &[("proto", "udp"), ("le", "100")], "3\n"),
        line("dns_response_size_bytes_count", &[("proto", "tcp")], "1\n"),
        line("plugin_enabled", &[("name", "kubernetes")], "1\n"),
        "\n# TYPE coredns_dns_response_size_bytes histogram\n".to_owned(),
        "\ncoredns_build_info{".to_owned(),
        "\ncoredns_panics_total 0\n".to_owned(),
        "\nfairlead_dns_source_synced 1\n".to_owned(),
        "\nprocess_open_fds ".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }

    let pid = nix::unistd::Pid::from_raw(running.0.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    wait_for("it is not ready any more", || get(ready, "/ready").is_some_and(|(status, _)| status == 503));
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        udp(address, "web.shop.svc.cluster.local A").expect("it answers while it is about to end");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(get(health, "/health").unwrap().0, 200);
    assert!(running.0.wait().unwrap().success());
}

#[test]
fn d20_the_process_serves_a_directory_and_ends_on_sigterm() {
    let directory = Directory::new("serve");
    std::fs::write(directory.0.join("shop.yaml"), MANIFEST).unwrap();
    let (address, path) = (free_address(), directory.0.to_str().unwrap());
    let listen = address.to_string();
    let mut args = vec!["--objects", path, "--listen", &listen, "--resolv-conf", "/nonexistent", "--ttl", "7"];
    let places = Places::new();
    args.extend(places.args());
    args.extend(["--lameduck", "0"]);
    let mut running = Running(command(&args).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    run(async {
        loop {
            let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.connect(address).await.unwrap();
            client.send(&query("web.shop.svc.cluster.local A")).await.unwrap();
            let mut buffer = [0; 512];
            // Before the socket is there, and before the directory is read, there is no answer yet.
            if let Ok(Ok(length)) = tokio::time::timeout(Duration::from_millis(200), client.recv(&mut buffer)).await {
                let message = Message::from_vec(&buffer[..length]).unwrap();
                if message.metadata.response_code == ResponseCode::NoError {
                    assert_eq!(message.answers[0].to_string(), "web.shop.svc.cluster.local. 7 IN A 10.96.0.1");
                    break;
                }
                assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
            }
            assert!(Instant::now() < deadline, "no answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let other = exchange(address, &query("www.example.org A")).await.unwrap();
        assert_eq!(Message::from_vec(&other).unwrap().metadata.response_code, ResponseCode::Refused);
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        write(&mut stream, &query("web.shop.svc.cluster.local A")).await;
        assert_eq!(Message::from_vec(&read(&mut stream).await).unwrap().answers.len(), 1);
    });
    let pid = nix::unistd::Pid::from_raw(running.0.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(running.0.wait().unwrap().success());
    let mut log = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("listening") && !log.contains("hickory_server"), "no line for each query: {log}");
}

#[test]
fn d31_an_upstream_that_is_the_server_itself_is_an_error() {
    let directory = Directory::new("loop");
    let path = directory.0.to_str().unwrap();
    let output = ends(&["--objects", path, "--listen", "127.0.0.1:5399", "--upstream", "127.0.0.1:5399"]);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("127.0.0.1:5399") && text.contains("name another"), "{text}");
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    for (args, word) in [
        (&["--zone", "a..b"][..], "a..b"),
        (&["--upstream", "dns.example"], "dns.example"),
        (&["--listen", "nowhere"], "nowhere"),
        (&["--ttl", "4000"], "3600"),
    ] {
        let output = ends(args);
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(word), "{args:?}: {text}");
    }
}
