//! A socket in memory, one system call after the other.

use std::net::{IpAddr, SocketAddr};
use std::string::{String, ToString as _};
use std::vec::Vec;

use super::*;
use crate::WirePort;
use crate::service::{
    Affinity, AffinityKey, Backend, BackendState, Frontend, FrontendFlags, FrontendKey, HostTables, Scope,
    SourceRangeKey,
};

const SERVICE: &str = "10.96.0.7:53";
const SERVICE_6: &str = "[fd00:10:96::7]:53";
const FIRST: &str = "10.0.0.1:5353";
const SECOND: &str = "10.0.0.2:5353";
const REFUSED: &str = "10.96.0.9:53";
const SILENT: &str = "10.96.0.8:53";
const OUTSIDE: &str = "192.0.2.1:53";

fn target(text: &str) -> Target {
    let addr: SocketAddr = text.parse().unwrap();
    Target { addr: addr.ip().into(), port: WirePort::new(addr.port()) }
}

/// A socket of the host, and the tables.
struct Host {
    tables: HostTables,
    protocol: u8,
    host: bool,
    cookie: u64,
    random: u32,
    target: Target,
    memory: Option<SocketMemory>,
    /// Whether the kernel has room for storage.
    room: bool,
    senders: Option<Senders>,
    closed: Vec<Addr>,
}

impl Host {
    /// A socket, with a service on FIRST and SECOND, one that refuses and one that drops, for each protocol.
    fn new(protocol: u8) -> Self {
        let mut tables = HostTables::default();
        for (number, proto) in [(1, TCP), (2, UDP)] {
            let ids = [number * 10, number * 10 + 1];
            for (id, text) in ids.into_iter().zip([FIRST, SECOND]) {
                let Target { addr, port } = target(text);
                let state = BackendState::new(1, true).0;
                tables.write_backend(id, Backend { addr, port, proto, pad: 0, service: number, state });
            }
            tables.write_slots(number * 10, &ids);
            let forward = Scope::forward(number * 10, 2);
            for (text, scope) in
                [(SERVICE, forward), (SERVICE_6, forward), (REFUSED, Scope::REJECT), (SILENT, Scope::DROP)]
            {
                let key = FrontendKey::new(target(text).addr, target(text).port, proto);
                let frontend = Frontend {
                    tag: 0,
                    service: number,
                    internal: scope,
                    external: Scope::DROP,
                    affinity_seconds: 0,
                    flags: 0,
                };
                tables.frontends.insert(key, frontend.sealed(key.tag()));
            }
        }
        Self {
            tables,
            protocol,
            host: true,
            cookie: 7,
            random: 0,
            target: target(OUTSIDE),
            memory: None,
            room: true,
            senders: None,
            closed: Vec::new(),
        }
    }

    fn call<R>(&mut self, text: &str, call: impl FnOnce(&mut Self) -> R) -> (R, String) {
        self.target = target(text);
        let result = call(self);
        (result, SocketAddr::new(IpAddr::from(self.target.addr), self.target.port.number()).to_string())
    }

    fn connect(&mut self, text: &str) -> (Verdict, String) {
        self.call(text, connect)
    }

    fn send(&mut self, text: &str) -> (Verdict, String) {
        self.call(text, send)
    }

    fn receive(&mut self, text: &str) -> String {
        self.call(text, receive).1
    }

    fn peer_name(&mut self, text: &str) -> String {
        self.call(text, peer_name).1
    }
}

impl Tables for Host {
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.tables.frontend(key)
    }
    fn node_address(&self, addr: &Addr) -> u32 {
        if addr.is_loopback() { FrontendFlags::WILDCARDS } else { self.tables.node_address(addr) }
    }
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.tables.affinity(key)
    }
    fn remember_affinity(&self, key: &AffinityKey, value: &Affinity) {
        self.tables.remember_affinity(key, value);
    }
    fn service_ports(&self, index: u32) -> u64 {
        self.tables.service_ports(index)
    }
    fn in_source_range(&self, key: &SourceRangeKey) -> bool {
        self.tables.in_source_range(key)
    }
    fn slot(&self, index: u32) -> Option<u32> {
        self.tables.slot(index)
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.tables.backend(id)
    }
    fn backend_state(&self, id: u32) -> u64 {
        self.tables.backend_state(id)
    }
    fn udp_generation(&self) -> u32 {
        self.tables.udp_generation()
    }
}

impl Socket for Host {
    fn protocol(&self) -> u8 {
        self.protocol
    }
    fn is_host(&self) -> bool {
        self.host
    }
    fn own_address(&self, like: Addr) -> Addr {
        match (self.host, like.is_v4()) {
            (false, _) => Addr::UNSPECIFIED,
            (true, true) => target("172.18.0.1:0").addr,
            (true, false) => target("[fd00:172:18::1]:0").addr,
        }
    }
    fn is_closed(&self, addr: Addr) -> bool {
        self.closed.contains(&addr)
    }
    fn seconds(&self) -> u32 {
        100
    }
    fn cookie(&self) -> u64 {
        self.cookie
    }
    fn random(&self) -> u32 {
        self.random
    }
    fn target(&self) -> Target {
        self.target
    }
    fn set_target(&mut self, target: Target) {
        self.target = target;
    }
    fn memory(&self) -> Option<SocketMemory> {
        self.memory
    }
    fn remember(&mut self, memory: &SocketMemory) {
        if self.room {
            self.memory = Some(*memory);
        }
    }
    fn sender(&self, place: usize) -> Option<Sender> {
        self.senders.map(|senders| senders.places[place])
    }
    fn remember_sender(&mut self, place: Option<usize>, sender: &Sender) {
        if self.room {
            let senders = self.senders.get_or_insert_default();
            let place = place.unwrap_or_else(|| {
                senders.written += 1;
                senders.written as usize - 1
            });
            senders.places[place % MAX_SENDERS] = *sender;
        }
    }
}

fn proceed(text: &str) -> (Verdict, String) {
    (Verdict::Proceed, text.into())
}

#[test]
fn s1_connect_goes_to_a_backend_and_getpeername_says_the_service() {
    for (host, service) in [(true, SERVICE), (false, SERVICE), (true, SERVICE_6)] {
        let mut socket = Host::new(TCP);
        socket.host = host;
        assert_eq!(socket.connect(service), proceed(FIRST));
        assert_eq!(socket.peer_name(FIRST), service);
        socket.random = u32::MAX;
        assert_eq!(socket.connect(service), proceed(SECOND));
        assert_eq!(socket.peer_name(SECOND), service);
        assert_eq!(socket.peer_name(FIRST), FIRST, "that is not its peer any more");
    }
}

#[test]
fn s33_connect_and_sendmsg_are_refused() {
    assert_eq!(Host::new(TCP).connect(REFUSED), (Verdict::Refuse, REFUSED.into()));
    assert_eq!(Host::new(UDP).connect(REFUSED), (Verdict::Refuse, REFUSED.into()));
    assert_eq!(Host::new(UDP).send(REFUSED), (Verdict::Refuse, REFUSED.into()));
}

#[test]
fn s34_a_drop_leaves_the_address_alone() {
    assert_eq!(Host::new(TCP).connect(SILENT), proceed(SILENT));
    assert_eq!(Host::new(UDP).send(SILENT), proceed(SILENT));
}

#[test]
fn s7_a_node_port_is_in_use() {
    const GUARD: u32 = FrontendFlags::NODE_PORT | FrontendFlags::GUARDED;
    let verdict = |text: &str, protocol: u8, host: bool| {
        let mut socket = Host::new(protocol);
        socket.host = host;
        for (text, proto, flags) in [
            ("0.0.0.0:30080", TCP, GUARD),
            ("[::]:30080", TCP, GUARD),
            ("0.0.0.0:30081", TCP, GUARD),
            ("0.0.0.0:30082", TCP, FrontendFlags::NODE_PORT),
            ("0.0.0.0:30083", TCP, FrontendFlags::HOST_PORT),
            ("0.0.0.0:30080", UDP, GUARD),
        ] {
            let key = FrontendKey::new(target(text).addr, target(text).port, proto);
            let frontend = Frontend {
                tag: 0,
                service: 1,
                internal: Scope::REJECT,
                external: Scope::REJECT,
                affinity_seconds: 0,
                flags,
            };
            socket.tables.frontends.insert(key, frontend.sealed(key.tag()));
        }
        for (text, kinds) in [
            ("172.18.0.1:0", FrontendFlags::WILDCARDS),
            ("[fd00:172:18::1]:0", FrontendFlags::WILDCARDS),
            ("172.17.0.1:0", FrontendFlags::HOST_PORT),
        ] {
            socket.tables.node_addresses.insert(target(text).addr, kinds);
        }
        socket.target = target(text);
        let verdict = bind(&socket);
        assert_eq!(socket.target, target(text), "nothing is changed");
        verdict
    };
    for text in ["0.0.0.0:30080", "[::]:30080", "172.18.0.1:30080", "[fd00:172:18::1]:30080", "127.0.0.1:30080"] {
        assert_eq!(verdict(text, TCP, true), Verdict::InUse, "{text}");
        assert_eq!(verdict(text, TCP, false), Verdict::Proceed, "{text} of a pod");
        assert_eq!(verdict(text, 132, true), Verdict::Proceed, "{text} of another protocol");
    }
    assert_eq!(verdict("[::]:30081", TCP, true), Verdict::InUse, "it is that port of IPv4 as well");
    assert_eq!(verdict("[::1]:30081", TCP, true), Verdict::Proceed, "that is of IPv6 alone");
    assert_eq!(verdict("[::ffff:172.18.0.1]:30081", TCP, true), Verdict::InUse);
    assert_eq!(verdict("0.0.0.0:30080", UDP, true), Verdict::InUse);
    for text in ["172.17.0.1:30080", "0.0.0.0:30082", "0.0.0.0:30083", "0.0.0.0:30084", "0.0.0.0:0", SERVICE] {
        assert_eq!(verdict(text, TCP, true), Verdict::Proceed, "{text}");
    }
}

#[test]
fn what_is_no_service_is_left_alone() {
    let mut socket = Host::new(TCP);
    assert_eq!(socket.connect(OUTSIDE), proceed(OUTSIDE));
    assert_eq!((socket.peer_name(OUTSIDE), socket.memory), (OUTSIDE.into(), None));
    assert_eq!(Host::new(1).connect(SERVICE), proceed(SERVICE), "an ICMP socket");
}

#[test]
fn datagrams_of_pods_are_left_to_their_packets() {
    let mut socket = Host::new(UDP);
    socket.host = false;
    assert_eq!(socket.connect(SERVICE), proceed(SERVICE));
    assert_eq!(socket.send(SERVICE), proceed(SERVICE));
    assert_eq!(socket.send(REFUSED), proceed(REFUSED));
    assert_eq!((socket.memory, socket.senders), (None, None));
}

#[test]
fn a_socket_that_turns_from_a_service_to_its_backend_sees_the_backend() {
    let mut socket = Host::new(UDP);
    let (_, backend) = socket.connect(SERVICE);
    assert_eq!(socket.receive(&backend), SERVICE);
    assert_eq!(socket.connect(&backend), proceed(&backend));
    assert_eq!((socket.peer_name(&backend), socket.receive(&backend)), (backend.clone(), backend.clone()));

    let (_, backend) = socket.send(SERVICE);
    assert_eq!(socket.receive(&backend), SERVICE);
    assert_eq!(socket.send(&backend), proceed(&backend));
    assert_eq!(socket.receive(&backend), backend);
}

#[test]
fn answers_come_from_the_service_that_was_asked() {
    let mut socket = Host::new(UDP);
    let (_, backend) = socket.send(SERVICE);
    assert_eq!(socket.receive(&backend), SERVICE);
    assert_eq!(socket.receive(OUTSIDE), OUTSIDE);
    assert_eq!(Host::new(UDP).receive(&backend), backend, "another socket has asked nobody");
}

#[test]
fn a_socket_remembers_so_many_backends_and_forgets_the_first_then() {
    let mut socket = Host::new(UDP);
    let port = |n: usize| 1000 + n as u16;
    let service = |n: usize| std::format!("10.96.1.1:{}", port(n));
    let backend = |n: usize| std::format!("10.0.0.3:{}", port(n));
    for n in 0..=MAX_SENDERS {
        remember_sender(&mut socket, &target(&backend(n)), &target(&service(n)));
        remember_sender(&mut socket, &target(&backend(n)), &target(&service(n)));
        for earlier in n.saturating_sub(MAX_SENDERS - 1)..=n {
            assert_eq!(socket.receive(&backend(earlier)), service(earlier), "{earlier} of {n}");
        }
    }
    let known = (0..=MAX_SENDERS).filter(|&n| socket.receive(&backend(n)) == service(n)).count();
    assert_eq!(known, MAX_SENDERS, "one place is one backend's");
    remember_sender(&mut socket, &target(&backend(1)), &target(SERVICE));
    assert_eq!(socket.receive(&backend(1)), SERVICE, "the service that it was sent to last");
}

#[test]
fn a_sender_of_which_half_was_written_is_not_believed() {
    let mut socket = Host::new(UDP);
    let (_, backend) = socket.send(SERVICE);
    socket.memory = None;
    socket.senders.as_mut().unwrap().places.iter_mut().for_each(|sender| sender.tag ^= 1);
    assert_eq!(socket.receive(&backend), backend);
}

#[test]
fn s40_a_socket_stays_with_its_backend_while_that_serves() {
    let mut socket = Host::new(UDP);
    let (_, first) = socket.send(SERVICE);
    let id = 20 + u32::from(first == SECOND);
    let other = if first == FIRST { SECOND } else { FIRST };
    // New flows go to the other alone.
    socket.tables.write_slots(40, &[41 - id]);
    socket.tables.change_frontends(|_, frontend| {
        if frontend.service == 2 && frontend.internal.count() > 0 {
            frontend.internal = Scope::forward(40, 1);
        }
    });
    assert_eq!(socket.send(SERVICE), proceed(&first));
    for state in [BackendState::new(1, false), BackendState::new(2, true)] {
        let mut socket = Host { tables: socket.tables.clone(), memory: socket.memory, ..Host::new(UDP) };
        socket.tables.write_backend_state(id, state.0);
        assert_eq!(socket.send(SERVICE), proceed(other), "{state:?}");
    }
}

#[test]
fn the_backend_of_before_is_never_that_of_another_service() {
    let mut socket = Host::new(UDP);
    socket.memory = Some(SocketMemory { last: 10 << 32 | 1, ..SocketMemory::default() });
    let (_, backend) = socket.send(SERVICE);
    assert_eq!(socket.memory.unwrap().last >> 32, 20 + u64::from(backend == SECOND));
}

#[test]
fn without_room_for_memory_calls_go_on() {
    let mut socket = Host::new(TCP);
    socket.room = false;
    assert_eq!(socket.connect(SERVICE), proceed(FIRST));
    assert_eq!(socket.peer_name(FIRST), FIRST);
    let mut socket = Host::new(UDP);
    socket.room = false;
    let (verdict, backend) = socket.send(SERVICE);
    assert_eq!((verdict, socket.receive(&backend)), (Verdict::Proceed, backend));
}

#[test]
fn s5_loopback_is_the_nodes_for_its_own_processes_alone() {
    for (loopback, wildcard) in [("127.0.0.1:30053", "0.0.0.0:30053"), ("[::1]:30053", "[::]:30053")] {
        for protocol in [TCP, UDP] {
            let mut socket = Host::new(protocol);
            let key = FrontendKey::new(target(wildcard).addr, target(wildcard).port, protocol);
            let like = FrontendKey::new(target(SERVICE).addr, target(SERVICE).port, protocol);
            let value =
                Frontend { flags: FrontendFlags::NODE_PORT, ..socket.tables.frontends[&like] }.sealed(key.tag());
            socket.tables.frontends.insert(key, value);
            assert_ne!(socket.connect(loopback), proceed(loopback));
            if protocol == UDP {
                assert_ne!(socket.send(loopback), proceed(loopback));
            }
            socket.host = false;
            assert_eq!(socket.connect(loopback), proceed(loopback));
            assert_eq!(socket.connect(wildcard), proceed(wildcard), "which a socket takes for loopback");
        }
    }
}

#[test]
fn s12_who_is_not_in_the_source_ranges_is_left_to_the_packets_way() {
    let mut socket = Host::new(TCP);
    socket.tables.change_frontends(|_, frontend| frontend.flags |= FrontendFlags::source_set(1));
    assert_eq!(socket.connect(SERVICE), proceed(SERVICE));
    socket.tables.source_ranges.insert(SourceRangeKey::prefix(1, target("172.18.0.0:0").addr, 16));
    assert_eq!(socket.connect(SERVICE), proceed(FIRST), "the node's own address is in");
    socket.host = false;
    assert_eq!(socket.connect(SERVICE), proceed(SERVICE), "a pod's is not known here");
}

#[test]
fn s38_a_host_is_one_client_and_pods_are_left_to_the_packets_way() {
    let mut socket = Host::new(TCP);
    socket.tables.change_frontends(|_, frontend| frontend.affinity_seconds = 10);
    assert_eq!(socket.connect(SERVICE), proceed(FIRST));
    socket.random = u32::MAX;
    assert_eq!(socket.connect(SERVICE), proceed(FIRST));
    socket.host = false;
    assert_eq!(socket.connect(SERVICE), proceed(SERVICE));
    let mut socket = Host::new(UDP);
    socket.tables.change_frontends(|_, frontend| frontend.affinity_seconds = 10);
    let (_, first) = socket.send(SERVICE);
    for cookie in 8..40 {
        (socket.cookie, socket.memory) = (cookie, None);
        assert_eq!(socket.send(SERVICE), proceed(&first), "another socket");
        assert_eq!(socket.connect(SERVICE), proceed(&first));
    }
}

#[test]
fn p53_what_is_closed_to_pods_is_refused_to_them_and_not_to_the_node() {
    const CLOSED: [&str; 2] = ["169.254.169.254:80", "[fd00:ec2::254]:80"];
    for protocol in [TCP, UDP] {
        let mut socket = Host::new(protocol);
        socket.closed = [CLOSED[0], CLOSED[1], FIRST, SERVICE].map(|text| target(text).addr).to_vec();
        socket.host = false;
        for text in CLOSED {
            assert_eq!(socket.connect(text), (Verdict::Refuse, text.to_string()));
            if protocol == UDP {
                assert_eq!(socket.send(text), (Verdict::Refuse, text.to_string()));
            }
        }
        assert_eq!(socket.connect(OUTSIDE), proceed(OUTSIDE));
        // What counts is where it leads: to what is closed, at the socket, or for datagrams where packets are judged.
        if protocol == TCP {
            assert_eq!(socket.connect(SERVICE).0, Verdict::Refuse, "the first backend is closed");
            socket.random = u32::MAX;
            assert_eq!(socket.connect(SERVICE), proceed(SECOND), "a service's address is not where it leads");
        } else {
            assert_eq!(socket.connect(SERVICE), proceed(SERVICE));
            assert_eq!(socket.send(SERVICE), proceed(SERVICE));
        }
        socket.host = true;
        for text in CLOSED {
            assert_eq!(socket.connect(text), proceed(text));
            if protocol == UDP {
                assert_eq!(socket.send(text), proceed(text));
            }
        }
    }
}
