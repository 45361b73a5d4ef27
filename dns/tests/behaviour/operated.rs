//! The process while it runs: what its metrics count, files that change, packets that are none, and too few descriptors.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};

use crate::client::{query, run};
use crate::elsewhere::{Upstream, found, response};
use crate::process::{Directory, MANIFEST, Places, Running, command, free_address, get, udp, wait_for};

/// A process that forwards to whom its resolv.conf names.
pub(crate) struct Served {
    pub(crate) directory: Directory,
    pub(crate) address: SocketAddr,
    pub(crate) places: Places,
    running: Running,
}

impl Served {
    pub(crate) fn start(name: &str, upstream: SocketAddr) -> Self {
        Self::at(free_address(), name, &format!("nameserver {upstream}"))
    }

    /// One at this address, with these lines in its resolv.conf.
    pub(crate) fn at(address: SocketAddr, name: &str, servers: &str) -> Self {
        let directory = Directory::new(name);
        let objects = directory.0.join("objects");
        std::fs::create_dir(&objects).unwrap();
        std::fs::write(objects.join("shop.yaml"), MANIFEST).unwrap();
        let resolv = directory.0.join("resolv.conf");
        resolv_conf(&resolv, servers);
        let places = Places::new();
        let listen = address.to_string();
        let mut args = vec!["--objects", objects.to_str().unwrap(), "--listen", &listen, "--lameduck", "0"];
        args.extend(["--resolv-conf", resolv.to_str().unwrap()]);
        args.extend(places.args());
        let log = std::fs::File::create(directory.0.join("log")).unwrap();
        let running = Running(command(&args).stderr(log).spawn().unwrap());
        let served = Self { directory, address, places, running };
        wait_for("it answers", || udp(address, OWN).is_some_and(|said| !said.answers.is_empty()));
        served
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.0.join("log")).unwrap()
    }

    /// The values of a metric, with their labels.
    pub(crate) fn metric(&self, name: &str) -> Vec<String> {
        let [.., metrics] = &self.places.0;
        let (_, text) = get(metrics, "/metrics").unwrap();
        let line = |line: &str| Some(line.strip_prefix(name)?.to_owned()).filter(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter_map(line).collect()
    }
}

pub(crate) const OWN: &str = "web.shop.svc.cluster.local A";

/// Writes a resolv.conf as kubelet does: nobody sees half of it.
fn resolv_conf(path: &Path, servers: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, format!("search example.org\n{servers}\noptions ndots:5\n")).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// An upstream server that knows every name but those that begin with `no`.
async fn upstream(address: &'static str) -> Upstream {
    Upstream::start(move |question, _| {
        let name = question.queries[0].name().to_string().to_lowercase();
        let mut message = found(question, address);
        if name.starts_with("no") {
            message = response(question);
            message.metadata.response_code = ResponseCode::NXDomain;
            let root = Name::root;
            let data = RData::SOA(SOA::new(root(), root(), 1, 1, 1, 1, 60));
            message.authorities = vec![Record::from_rdata(Name::from_ascii("example.org.").unwrap(), 60, data)];
        }
        vec![message.to_vec().unwrap()]
    })
    .await
}

#[test]
fn d31_what_is_kept_is_counted_as_coredns_counts_it_and_a_changed_resolv_conf_is_read() {
    run(async {
        let (old, new) = (upstream("192.0.2.7").await, upstream("192.0.2.8").await);
        let served = Served::start("kept", old.address);
        let says = |question: &'static str| udp(served.address, question).expect("an answer");
        for _ in 0..3 {
            assert_eq!(says("www.example.org A").answers.len(), 1);
            assert_eq!(says("no.example.org A").metadata.response_code, ResponseCode::NXDomain);
        }
        let labels = format!("server=\"dns://{}\",", served.address);
        let plain = format!("{{{labels}view=\"\",zones=\".\"}} ");
        let typed = |kind: &str| format!("{{{labels}type=\"{kind}\",view=\"\",zones=\".\"}} ");
        let both = |denial: u32, success: u32| {
            vec![format!("{}{denial}", typed("denial")), format!("{}{success}", typed("success"))]
        };
        for (name, wanted) in [
            ("coredns_cache_entries", both(1, 1)),
            ("coredns_cache_hits_total", both(2, 2)),
            ("coredns_cache_evictions_total", both(0, 0)),
            ("coredns_cache_misses_total", vec![format!("{plain}2")]),
            ("coredns_cache_requests_total", vec![format!("{plain}6")]),
            ("coredns_cache_prefetch_total", vec![format!("{plain}0")]),
            ("coredns_cache_served_stale_total", vec![format!("{plain}0")]),
        ] {
            let mut said = served.metric(name);
            said.sort();
            assert_eq!(said, wanted, "{name}");
        }

        resolv_conf(&served.directory.0.join("resolv.conf"), &format!("nameserver {}", new.address));
        let number = Cell::new(0);
        wait_for("the new server is asked", || {
            number.set(number.get() + 1);
            let said = says(format!("name-{}.example.org A", number.get()).leak());
            said.answers.first().is_some_and(|record| record.to_string().ends_with("192.0.2.8"))
        });
    });
}

#[test]
fn d31_zones_of_the_settings_have_servers_of_their_own() {
    run(async {
        let (corp, lab) = (upstream("192.0.2.7").await, upstream("192.0.2.8").await);
        let directory = Directory::new("zones");
        let [objects, settings] = ["objects", "dns.yaml"].map(|name| directory.0.join(name));
        std::fs::create_dir(&objects).unwrap();
        std::fs::write(objects.join("shop.yaml"), MANIFEST).unwrap();
        let text =
            format!("zones: {{corp.example: ['{}']}}\nstubDomain: [lab.example={}]\n", corp.address, lab.address);
        std::fs::write(&settings, text).unwrap();
        let (address, places) = (free_address(), Places::new());
        let listen = address.to_string();
        let mut args = vec!["--objects", objects.to_str().unwrap(), "--config", settings.to_str().unwrap()];
        args.extend(["--listen", &listen, "--resolv-conf", "/nonexistent", "--lameduck", "0"]);
        args.extend(places.args());
        let _running = Running(command(&args).spawn().unwrap());
        wait_for("it answers", || udp(address, OWN).is_some_and(|said| !said.answers.is_empty()));
        for (question, answer) in [("www.corp.example A", "192.0.2.7"), ("www.lab.example A", "192.0.2.8")] {
            assert!(udp(address, question).unwrap().answers[0].to_string().ends_with(answer), "{question}");
        }
        assert_eq!(udp(address, "www.example.org A").unwrap().metadata.response_code, ResponseCode::Refused);
    });
}

#[test]
fn packets_that_are_no_queries_write_no_warnings() {
    run(async {
        let other = upstream("192.0.2.7").await;
        let served = Served::start("quiet", other.address);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(served.address).unwrap();
        let good = query(OWN);
        let mut packets: Vec<Vec<u8>> = (0..good.len()).map(|length| good[..length].to_vec()).collect();
        // One byte of a query is another.
        packets.extend((0..good.len()).flat_map(|at| {
            [0x00, 0x3f, 0x80, 0xc0, 0xff].map(|byte| {
                let mut packet = good.clone();
                packet[at] = byte;
                packet
            })
        }));
        packets.extend([vec![0xff; 512], vec![0xc0; 9000], [&good[..], &good].concat()]);
        for packet in packets.iter().cycle().take(5_000) {
            // What does not fit the queue is lost.
            let _sent = socket.send(packet);
        }
        for packet in &packets {
            let mut stream = TcpStream::connect(served.address).unwrap();
            let length = u16::try_from(packet.len()).unwrap();
            let _ended = stream.write_all(&[&length.to_be_bytes(), &packet[..]].concat());
        }
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]] {
            TcpStream::connect(served.address).unwrap().write_all(garbage).unwrap();
        }
        wait_for("it answers still", || udp(served.address, OWN).is_some_and(|said| !said.answers.is_empty()));
        let log = served.log();
        let loud: Vec<&str> = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
        assert!(loud.is_empty() && log.contains("listening"), "{loud:#?}");
    });
}

/// Sets a process' soft limit of open files.
fn limit(served: &Served, files: &str) {
    let pid = served.running.0.id().to_string();
    let said = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:")]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
}

#[test]
fn d26_without_descriptors_that_is_said_once_and_the_service_goes_on() {
    run(async {
        let other = upstream("192.0.2.7").await;
        let served = Served::start("files", other.address);
        const WORDS: &str = "can't accept TCP connections: raise the limit of open files";
        let over_tcp = || {
            let mut stream = TcpStream::connect(served.address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let asked = query(OWN);
            stream.write_all(&[&(asked.len() as u16).to_be_bytes(), &asked[..]].concat()).ok()?;
            let mut length = [0; 2];
            stream.read_exact(&mut length).ok()?;
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).ok()?;
            Message::from_vec(&message).ok().filter(|said| !said.answers.is_empty())
        };
        assert!(over_tcp().is_some());
        limit(&served, "3");
        let waiting: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(served.address).unwrap()).collect();
        wait_for("it is said", || served.log().contains(WORDS));
        for _ in 0..50 {
            assert!(udp(served.address, OWN).is_some_and(|said| !said.answers.is_empty()), "UDP goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(served.log().matches("can't accept").count(), 1, "once: {}", served.log());
        limit(&served, "1024");
        wait_for("TCP goes on", || over_tcp().is_some());
        drop(waiting);
    });
}

#[test]
fn d31_a_changed_configuration_that_could_not_be_read_for_a_moment_is_read_later() {
    run(async {
        let (old, new) = (upstream("192.0.2.7").await, upstream("192.0.2.8").await);
        let served = Served::start("passing", old.address);
        assert!(udp(served.address, "www.example.org A").is_some_and(|said| !said.answers.is_empty()));
        limit(&served, "3");
        resolv_conf(&served.directory.0.join("resolv.conf"), &format!("nameserver {}", new.address));
        wait_for("it can't be read", || served.log().contains("keeping the previous configuration"));
        limit(&served, "1024");
        let number = Cell::new(0);
        wait_for("the new server is asked", || {
            number.set(number.get() + 1);
            let said = udp(served.address, format!("name-{}.example.org A", number.get()).leak());
            said.is_some_and(|said| {
                said.answers.first().is_some_and(|record| record.to_string().ends_with("192.0.2.8"))
            })
        });
        let times = served.log().matches("keeping the previous configuration").count();
        assert!(times <= 3, "each reason once: {}", served.log());
    });
}
