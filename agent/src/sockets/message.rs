//! Messages of sock_diag (include/uapi/linux/sock_diag.h, inet_diag.h): bytes to the kernel and from it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fairlead_datapath::service::sock::SocketMemory;
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

use super::plan::{SeenSocket, Transport, translated};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLA_F_NESTED` and the flag beside it are no part of an attribute's type.
const TYPE_MASK: u16 = 0x3fff;
const REQ_SK_BPF_STORAGES: u16 = 2;
const REQ_MAP_FD: u16 = 1;
/// `INET_DIAG_SK_BPF_STORAGES`.
const SK_BPF_STORAGES: u16 = 20;
const STORAGE: u16 = 1;
const STORAGE_VALUE: u16 = 3;
/// `TCP_ESTABLISHED`, which connected UDP sockets have as well, `TCP_SYN_SENT` and `TCP_CLOSE_WAIT`: what a process has that
/// has not closed it.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 8;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    len: u32,
    kind: u16,
    flags: u16,
    seq: u32,
    pid: u32,
}

/// `struct inet_diag_sockid`: ports and addresses in network byte order.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Id {
    sport: [u8; 2],
    dport: [u8; 2],
    src: [u8; 16],
    dst: [u8; 16],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Request {
    family: u8,
    protocol: u8,
    ext: u8,
    pad: u8,
    states: u32,
    id: Id,
}

/// `struct inet_diag_msg`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Answer {
    family: u8,
    state: u8,
    timer: u8,
    retrans: u8,
    id: Id,
    rest: [u32; 5],
}

fn family(v6: bool) -> u8 {
    (if v6 { libc::AF_INET6 } else { libc::AF_INET }) as u8
}

fn message(kind: u16, flags: u16, seq: u32, request: &Request, attributes: &[u8]) -> Vec<u8> {
    let len = (size_of::<Header>() + size_of::<Request>() + attributes.len()) as u32;
    let header = Header { len, kind, flags: flags | NLM_F_REQUEST, seq, pid: 0 };
    [header.as_bytes(), request.as_bytes(), attributes].concat()
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = (4 + payload.len()) as u16;
    let mut bytes = [length, kind].map(u16::to_ne_bytes).concat();
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Asks for the sockets of a family and protocol, with what a map of socket storage holds of each.
pub(super) fn list(v6: bool, transport: Transport, storage: u32, seq: u32) -> Vec<u8> {
    let protocol = transport.number();
    let request = Request { family: family(v6), protocol, ext: 0, pad: 0, states: STATES, id: Id::new_zeroed() };
    let storages = attribute(REQ_SK_BPF_STORAGES, &attribute(REQ_MAP_FD, &storage.to_ne_bytes()));
    message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, seq, &request, &storages)
}

/// Asks for the end of a socket: of this one alone, by its cookie.
pub(super) fn destroy(socket: &SeenSocket, seq: u32) -> Vec<u8> {
    let octets = |ip: IpAddr| {
        let mut octets = [0; 16];
        match ip {
            IpAddr::V4(ip) => octets[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => octets = ip.octets(),
        }
        octets
    };
    let id = Id {
        sport: socket.local.port().to_be_bytes(),
        dport: socket.remote.port().to_be_bytes(),
        src: octets(socket.local.ip()),
        dst: octets(socket.remote.ip()),
        interface: socket.interface,
        cookie: [socket.cookie as u32, (socket.cookie >> 32) as u32],
    };
    let protocol = socket.transport.number();
    let request = Request { family: family(socket.v6), protocol, ext: 0, pad: 0, states: u32::MAX, id };
    message(SOCK_DESTROY, NLM_F_ACK, seq, &request, &[])
}

/// How far an answer goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// More comes.
    More,
    /// That was all.
    Done,
    /// The kernel refuses: its error, or 0 where an acknowledgement was asked for.
    Error(i32),
}

/// Reads what came in one piece: sockets are added, messages with another number passed over.
pub(super) fn read(mut bytes: &[u8], transport: Transport, seq: u32, sockets: &mut Vec<SeenSocket>) -> Told {
    while let Ok((header, _)) = Header::read_from_prefix(bytes) {
        let Some(body) = bytes.get(size_of::<Header>()..header.len as usize) else { return Told::More };
        bytes = bytes.get((header.len as usize).next_multiple_of(4)..).unwrap_or_default();
        if header.seq != seq {
            continue;
        }
        match header.kind {
            NLMSG_DONE => {
                return match i32::read_from_prefix(body) {
                    Ok((error, _)) if error < 0 => Told::Error(-error),
                    _ => Told::Done,
                };
            }
            NLMSG_ERROR => return Told::Error(i32::read_from_prefix(body).map_or(0, |(error, _)| -error)),
            SOCK_DIAG_BY_FAMILY => sockets.extend(socket(body, transport)),
            _ => {}
        }
    }
    Told::More
}

fn socket(body: &[u8], transport: Transport) -> Option<SeenSocket> {
    let (answer, attributes) = Answer::read_from_prefix(body).ok()?;
    let v6 = answer.family == family(true);
    let ip = |octets: [u8; 16]| {
        if v6 {
            return IpAddr::from(Ipv6Addr::from(octets));
        }
        let [a, b, c, d, ..] = octets;
        IpAddr::from(Ipv4Addr::from([a, b, c, d]))
    };
    let id = answer.id;
    let end = |octets, port| SocketAddr::new(ip(octets), u16::from_be_bytes(port));
    let (local, remote) = (end(id.src, id.sport), end(id.dst, id.dport));
    let storages = find(attributes, SK_BPF_STORAGES);
    let value = storages.and_then(|storages| find(storages, STORAGE)).and_then(|one| find(one, STORAGE_VALUE));
    let memory = value.and_then(|value| SocketMemory::read_from_bytes(value).ok());
    Some(SeenSocket {
        transport,
        v6,
        local,
        remote,
        interface: id.interface,
        cookie: u64::from(id.cookie[0]) | u64::from(id.cookie[1]) << 32,
        translated: memory.as_ref().and_then(translated),
    })
    .filter(|socket| socket.remote.port() != 0)
}

/// The payload of the first attribute of a type.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((&[a, b, c, d], _)) = attributes.split_first_chunk() {
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let payload = attributes.get(4..length)?;
        if kind & TYPE_MASK == wanted {
            return Some(payload);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use fairlead_datapath::{Addr, WirePort};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn answer(v6: bool, value: Option<&[u8]>) -> Vec<u8> {
        let ip = |last: u8| {
            let mut octets = [0; 16];
            let at = if v6 { 15 } else { 3 };
            octets[0] = 10;
            octets[at] = last;
            octets
        };
        let id = Id { sport: [1, 0], dport: [0, 80], src: ip(1), dst: ip(2), interface: 3, cookie: [7, 1] };
        let body = Answer { family: family(v6), state: 1, timer: 0, retrans: 0, id, rest: [0; 5] };
        let storages = value.map(|value| {
            let one = [attribute(2, &5_u32.to_ne_bytes()), attribute(STORAGE_VALUE, value)].concat();
            attribute(SK_BPF_STORAGES, &attribute(STORAGE, &one))
        });
        let payload = [body.as_bytes(), &attribute(8, &[0]), &storages.unwrap_or_default()].concat();
        let len = (size_of::<Header>() + payload.len()) as u32;
        let header = Header { len, kind: SOCK_DIAG_BY_FAMILY, flags: 2, seq: 9, pid: 0 };
        [header.as_bytes(), &payload].concat()
    }

    #[test]
    fn a_socket_is_read_with_what_a_hook_made_of_it() {
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        let memory = SocketMemory {
            service: Addr::from("10.96.0.1".parse::<IpAddr>().unwrap()),
            backend: Addr::from("10.0.0.2".parse::<IpAddr>().unwrap()),
            service_port: WirePort::new(443),
            backend_port: WirePort::new(80),
            ..SocketMemory::default()
        };
        let done = Header { len: 16, kind: NLMSG_DONE, flags: 2, seq: 9, pid: 0 };
        let bytes = [
            &answer(false, Some(memory.as_bytes()))[..],
            &answer(false, Some(SocketMemory::default().as_bytes())),
            &answer(true, None),
            done.as_bytes(),
        ]
        .concat();
        let mut sockets = Vec::new();
        assert_eq!(read(&bytes, Transport::Tcp, 9, &mut sockets), Told::Done);
        let [one, forgotten, plain] = &sockets[..] else { panic!("{sockets:?}") };
        assert_eq!((one.local, one.remote), (end("10.0.0.1:256"), end("10.0.0.2:80")));
        assert_eq!((one.interface, one.cookie), (3, 1 << 32 | 7));
        assert_eq!(one.translated, Some((end("10.96.0.1:443"), end("10.0.0.2:80"))));
        assert_eq!((forgotten.translated, plain.translated, plain.v6), (None, None, true));
        let mut none = Vec::new();
        assert_eq!(read(&bytes, Transport::Tcp, 8, &mut none), Told::More, "an answer to another question");
        assert_eq!(none, []);
    }

    #[test]
    fn an_end_names_one_socket_by_its_addresses_and_cookie() {
        let mut sockets = Vec::new();
        read(&answer(false, None), Transport::Udp, 9, &mut sockets);
        let bytes = destroy(&sockets[0], 5);
        let (header, rest) = Header::read_from_prefix(&bytes).unwrap();
        assert_eq!((header.len as usize, header.kind, header.seq), (bytes.len(), SOCK_DESTROY, 5));
        let (request, rest) = Request::read_from_prefix(rest).unwrap();
        assert!(rest.is_empty());
        let Id { sport, dport, src, dst, interface, cookie } = request.id;
        assert_eq!((request.family, request.protocol), (family(false), 17));
        assert_eq!((sport, dport, interface, cookie), ([1, 0], [0, 80], 3, [7, 1]));
        assert_eq!((&src[..4], &dst[..4]), (&[10, 0, 0, 1][..], &[10, 0, 0, 2][..]));
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in vec(any::<u8>(), 0..300), at in 0_usize..300, flip in any::<u8>()) {
            let mut sockets = Vec::new();
            read(&bytes, Transport::Tcp, 9, &mut sockets);
            let mut whole = answer(true, Some(&bytes));
            let at = at % whole.len();
            whole[at] ^= flip;
            read(&whole, Transport::Tcp, 9, &mut sockets);
            prop_assert!(sockets.len() <= 2);
        }
    }
}
