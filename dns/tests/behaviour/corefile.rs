//! Configurations of CoreDNS: what distributions have, as a process serves it.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};

use crate::client::run;
use crate::elsewhere::Upstream;
use crate::process::{Directory, MANIFEST, Places, Running, command, ends, free_address, udp, wait_for};

const KUBEADM: &str = include_str!("../corefiles/kubeadm");
const K3S: &str = include_str!("../corefiles/k3s");

/// A process with a Corefile, whose paths lead into a directory.
struct Served {
    directory: Directory,
    address: std::net::SocketAddr,
    _running: Running,
}

impl Served {
    /// Starts it, with files beside the Corefile, and waits until it answers.
    fn start(name: &str, corefile: &str, upstream: std::net::SocketAddr, files: &[(&str, &str)]) -> Self {
        let directory = Directory::new(name);
        let path = directory.0.clone();
        std::fs::create_dir_all(path.join("objects")).unwrap();
        std::fs::create_dir_all(path.join("custom")).unwrap();
        std::fs::write(path.join("objects/shop.yaml"), MANIFEST).unwrap();
        std::fs::write(path.join("resolv.conf"), format!("nameserver {upstream}\n")).unwrap();
        for (name, text) in files {
            std::fs::write(path.join(name), text).unwrap();
        }
        write(&path, corefile);
        let (address, places) = (free_address(), Places::new());
        let (listen, objects, file) = (address.to_string(), path.join("objects"), path.join("Corefile"));
        let mut args = vec!["--objects", objects.to_str().unwrap(), "--listen", &listen];
        args.extend(["--corefile", file.to_str().unwrap(), "--lameduck", "0"]);
        args.extend(places.args());
        let log = std::fs::File::create(path.join("log")).unwrap();
        let running = Running(command(&args).stderr(log).spawn().unwrap());
        let served = Self { directory, address, _running: running };
        wait_for("it answers", || {
            served.asked("web.shop.svc.cluster.local A").is_some_and(|message| !message.answers.is_empty())
        });
        served
    }

    fn path(&self) -> &Path {
        &self.directory.0
    }

    fn asked(&self, question: &'static str) -> Option<Message> {
        udp(self.address, question)
    }

    /// The records and the code of an answer.
    fn said(&self, question: &'static str) -> (ResponseCode, Vec<String>) {
        let message = self.asked(question).unwrap_or_else(|| panic!("an answer to {question}"));
        (message.metadata.response_code, message.answers.iter().map(ToString::to_string).collect())
    }

    fn says(&self, question: &'static str, answers: &[&str]) {
        let (code, found) = self.said(question);
        assert_eq!(
            (code, &found[..]),
            (ResponseCode::NoError, &answers.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>()[..]),
            "{question}"
        );
    }

    fn comes_to_say(&self, question: &'static str, answer: &str) {
        wait_for(&format!("{question} is {answer}"), || self.said(question).1 == [answer]);
    }

    /// What it has logged until now.
    fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("log")).unwrap()
    }
}

/// Writes a Corefile into a directory, with paths that lead there.
fn write(path: &Path, corefile: &str) -> PathBuf {
    let text = corefile
        .replace("/etc/resolv.conf", path.join("resolv.conf").to_str().unwrap())
        .replace("/etc/coredns", path.to_str().unwrap());
    // As a ConfigMap's volume does it: nobody sees half of it.
    let (new, file) = (path.join("new"), path.join("Corefile"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, &file).unwrap();
    file
}

#[test]
fn d39_kubeadms_corefile_is_served_as_it_is() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let served = Served::start("kubeadm", KUBEADM, upstream.address, &[]);
        served.says("web.shop.svc.cluster.local A", &["web.shop.svc.cluster.local. 30 IN A 10.96.0.1"]);
        served.says("10-0-0-1.shop.pod.cluster.local A", &["10-0-0-1.shop.pod.cluster.local. 30 IN A 10.0.0.1"]);
        served.says("1.0.96.10.in-addr.arpa PTR", &["1.0.96.10.in-addr.arpa. 30 IN PTR web.shop.svc.cluster.local."]);
        // At most as long as it is kept.
        served.says("www.example.org A", &["www.example.org. 30 IN A 192.0.2.7"]);
        assert_eq!(served.said("no.shop.svc.cluster.local A"), (ResponseCode::NXDomain, vec![]));
    });
}

#[test]
fn d39_k3s_corefile_is_served_with_its_hosts_and_imports() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let other = Upstream::of("192.0.2.8").await;
        let server = format!("corp.example:53 {{\n forward . {}\n}}\n", other.address);
        let files = [
            ("NodeHosts", "10.1.0.1 node-1\n10.1.0.2 node-2\n"),
            ("custom/log.override", "rewrite name www.old.example other.example.org\n"),
            ("custom/corp.server", &server),
        ];
        let served = Served::start("k3s", K3S, upstream.address, &files);
        served.says("node-1 A", &["node-1. 60 IN A 10.1.0.1"]);
        served.says("node-1 AAAA", &[]);
        served.says("1.0.1.10.in-addr.arpa PTR", &["1.0.1.10.in-addr.arpa. 60 IN PTR node-1."]);
        served.says("www.example.org A", &["www.example.org. 30 IN A 192.0.2.7"]);
        served.says("WWW.old.example A", &["WWW.old.example. 30 IN A 192.0.2.7"]);
        served.says("www.corp.example A", &["www.corp.example. 60 IN A 192.0.2.8"]);
        served.says("web.shop.svc.cluster.local A", &["web.shop.svc.cluster.local. 5 IN A 10.96.0.1"]);
        // Files that change are read again, and one that comes is read.
        std::fs::write(served.path().join("NodeHosts"), "10.1.0.9 node-1\n").unwrap();
        served.comes_to_say("node-1 A", "node-1. 60 IN A 10.1.0.9");
        std::fs::write(
            served.path().join("custom/more.override"),
            "template IN A x.example {\n answer \"{{ .Name }} 9 IN A 192.0.2.9\"\n}\n",
        )
        .unwrap();
        served.comes_to_say("a.x.example A", "a.x.example. 9 IN A 192.0.2.9");
    });
}

#[test]
fn d39_a_mistake_keeps_what_was_there_and_says_where_it_is() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let served = Served::start("mistaken", KUBEADM, upstream.address, &[]);
        let path = served.path().to_owned();
        write(&path, &KUBEADM.replace("    loop", "    loop\n    nonsense"));
        let better = KUBEADM.replace("ttl 30", "ttl 17");
        wait_for("the mistake is said", || served.log().contains("keeping the previous configuration"));
        served.says("web.shop.svc.cluster.local A", &["web.shop.svc.cluster.local. 30 IN A 10.96.0.1"]);
        write(&path, &better);
        served.comes_to_say("web.shop.svc.cluster.local A", "web.shop.svc.cluster.local. 17 IN A 10.96.0.1");
        // What can't change is said too.
        write(&path, &better.replace("cluster.local in-addr", "other.local in-addr"));
        wait_for("what can't change is said", || served.log().contains("restart it"));
        served.says("web.shop.svc.cluster.local A", &["web.shop.svc.cluster.local. 17 IN A 10.96.0.1"]);
        let log = served.log();
        assert!(log.contains("Corefile:21: there is no plugin"), "{log}");
    });
}

fn checked(path: &Path) -> Output {
    ends(&["check", "--corefile", path.to_str().unwrap()])
}

#[test]
fn d39_check_says_what_a_corefile_would_do_or_why_it_can_not() {
    let directory = Directory::new("check");
    let file = write(&directory.0, KUBEADM);
    std::fs::write(directory.0.join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    let output = checked(&file);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for words in ["can be served, on port 53", "cluster.local.", "in-addr.arpa.", "answers are cached for 30 s"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    let outward = "    dns64 {\n translate_all\n }\n    transfer {\n to 192.0.2.1 ::1\n }\n    transfer out.example {\n to *\n }\n\
                   k8s_external out.example {\n headless\n ttl 7\n }\n";
    write(&directory.0, &KUBEADM.replace("    loop", outward));
    let text = String::from_utf8(checked(&file).stdout).unwrap();
    for words in [
        "dns64: clients that ask over IPv6, names with IPv6 addresses too, in 64:ff9b::/96",
        "zone transfers of . to 192.0.2.1, ::1",
        "zone transfers of out.example. to everybody",
        "external addresses of Services and endpoints of headless Services in out.example.: records live for 7 s",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    write(&directory.0, &KUBEADM.replace("    loop", "    autopath @kubernetes"));
    let output = checked(&file);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && text.contains("Corefile:20: the plugin autopath is not supported: remove it"),
        "{text}"
    );
    let missing = checked(&directory.0.join("missing"));
    assert!(!missing.status.success() && String::from_utf8(missing.stderr).unwrap().contains("check the path"));
}

#[test]
fn settings_for_other_zones_do_not_go_with_a_corefile() {
    let output = ends(&["--corefile", "/nonexistent", "--upstream", "192.0.2.1"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("--corefile") && text.contains("--upstream"), "{text}");
}

#[test]
fn the_query_log_is_switched_on_and_off_in_the_settings_file() {
    let directory = Directory::new("logged");
    let objects = directory.0.join("objects");
    std::fs::create_dir_all(&objects).unwrap();
    std::fs::write(objects.join("shop.yaml"), MANIFEST).unwrap();
    let config = directory.0.join("dns.yaml");
    std::fs::write(&config, "queryLog: []\n").unwrap();
    let (address, places) = (free_address(), Places::new());
    let listen = address.to_string();
    let mut args =
        vec!["--objects", objects.to_str().unwrap(), "--listen", &listen, "--config", config.to_str().unwrap()];
    args.extend(["--resolv-conf", "/nonexistent", "--lameduck", "0"]);
    args.extend(places.args());
    let mut running = Running(command(&args).spawn().unwrap());
    let stderr = running.0.stderr.take().unwrap();
    let (tell, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(stderr)).map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    wait_for("it answers", || udp(address, "web.shop.svc.cluster.local A").is_some_and(|m| !m.answers.is_empty()));
    std::fs::write(&config, "queryLog: [shop.svc.cluster.local, 192.0.2.0/24]\nqueryLogRate: 5\n").unwrap();
    let mut log = Vec::new();
    let mut wait_for_line = |words: &str| {
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            let Ok(line) = lines.recv_timeout(Duration::from_millis(20)) else { continue };
            log.push(line);
            if log.last().is_some_and(|line| line.contains(words)) {
                return;
            }
        }
        panic!("{words} is not in {log:#?}");
    };
    wait_for_line("the configuration has changed");
    udp(address, "dns-version.cluster.local TXT").unwrap();
    udp(address, "Web.shop.svc.cluster.local A").unwrap();
    wait_for_line("\"A IN web.shop.svc.cluster.local. udp 44 false 512\" NOERROR qr,aa,rd ");
    // More than are written.
    for _ in 0..20 {
        udp(address, "no.shop.svc.cluster.local AAAA").unwrap();
    }
    std::thread::sleep(Duration::from_millis(1100));
    udp(address, "web.shop.svc.cluster.local SRV").unwrap();
    wait_for_line("queries were not logged");
    std::fs::write(&config, "queryLog: [no..name]\n").unwrap();
    wait_for_line("keeping the previous configuration");
    std::fs::write(&config, "").unwrap();
    wait_for_line("the configuration has changed");
    udp(address, "web.shop.svc.cluster.local A").unwrap();
    drop(running);
    let rest: Vec<String> = lines.iter().collect();
    assert!(rest.iter().all(|line| !line.contains(" IN ")), "{rest:#?}");
    let written = log.iter().filter(|line| line.contains("AAAA IN")).count();
    assert!((1..20).contains(&written), "{written} of 20: {log:#?}");
    assert!(log.iter().all(|line| !line.contains("dns-version")), "{log:#?}");
}
