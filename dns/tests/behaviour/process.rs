//! The binary.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};

use crate::client::{exchange, query, read, run, write};

const MANIFEST: &str = "\
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
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
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
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fairlead-dns"));
    command.env_remove("RUST_LOG").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ends(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn free_address() -> SocketAddr {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

#[test]
fn d20_the_process_serves_a_directory_and_ends_on_sigterm() {
    let directory = Directory::new("serve");
    std::fs::write(directory.0.join("shop.yaml"), MANIFEST).unwrap();
    let (address, path) = (free_address(), directory.0.to_str().unwrap());
    let listen = address.to_string();
    let args = ["--objects", path, "--listen", &listen, "--resolv-conf", "/nonexistent", "--ttl", "7"];
    let mut running = Running(command(&args).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
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
