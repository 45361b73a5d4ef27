//! SCTP without a kernel that has it, for upstream's tests of policy: associations are set up by raw sockets. What passes on the wire is
//! SCTP, and that is all that a policy sees.
//!
//! It stands in for two commands of upstream's test program agnhost, with their arguments, environment and answers:
//! `porter`, which serves the ports of the variables `SERVE_SCTP_PORT_N`, and `connect HOST:PORT --protocol=sctp --timeout=T`, which
//! says on standard error `TIMEOUT`, `REFUSED` or `OTHER`, and fails, if there is no association in time.
//!
//! A server is silent to other ports than its own: several in one pod all see each packet. So what is closed is not refused.
#![forbid(unsafe_code)]

mod packet;

use std::collections::BTreeSet;
use std::env;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use packet::{Kind, Packet};
use socket2::{Domain, Protocol, Socket, Type};

/// The protocol's number.
const SCTP: i32 = 132;
/// How often what is not answered is sent again.
const AGAIN: Duration = Duration::from_millis(500);
/// The longest packet.
const LONGEST: usize = 4096;
/// A server's tag: whoever is in the pod's network may say what he likes there anyway.
const TAG: u32 = 0x6661_6972;

/// What became of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Connected,
    Refused,
    TimedOut,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("porter") => serve(&ports(env::vars())),
        Some("connect") => parse(arguments.get(1..).unwrap_or_default()).and_then(|(to, limit)| connect(to, limit)),
        _ => Err(anyhow::anyhow!("usage: fairlead-sctp porter | connect HOST:PORT --protocol=sctp --timeout=T")),
    };
    let said = match result {
        Ok(Outcome::Connected) => return ExitCode::SUCCESS,
        Ok(Outcome::Refused) => "REFUSED".to_owned(),
        Ok(Outcome::TimedOut) => "TIMEOUT".to_owned(),
        Err(error) => format!("OTHER: {error:#}"),
    };
    eprintln!("{said}");
    ExitCode::FAILURE
}

/// The ports that are to be served.
fn ports(variables: impl Iterator<Item = (String, String)>) -> BTreeSet<u16> {
    variables.filter_map(|(name, _)| name.strip_prefix("SERVE_SCTP_PORT_")?.parse().ok()).collect()
}

/// Where to, and how long it may take.
fn parse(arguments: &[String]) -> Result<(SocketAddr, Duration)> {
    let (mut to, mut limit) = (None, Duration::from_secs(3));
    for argument in arguments {
        if let Some(time) = argument.strip_prefix("--timeout=") {
            limit = duration(time).with_context(|| format!("--timeout {time}: say 1s or 500ms"))?;
        } else if !argument.starts_with("--") {
            to = Some(argument.parse().with_context(|| format!("{argument} is no address with a port"))?);
        } else if argument != "--protocol=sctp" {
            bail!("{argument} is not known");
        }
    }
    Ok((to.context("HOST:PORT is missing")?, limit))
}

/// A time as Go writes it, in one unit.
fn duration(text: &str) -> Option<Duration> {
    let milliseconds = text.strip_suffix("ms").and_then(|text| text.parse().ok()).map(Duration::from_millis);
    milliseconds.or_else(|| text.strip_suffix('s')?.parse().ok().map(Duration::from_secs_f64))
}

/// A raw socket, as one that sends and receives datagrams.
fn raw(v4: bool) -> Result<UdpSocket> {
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(SCTP)));
    Ok(socket.context("can't open a raw socket, which takes CAP_NET_RAW")?.into())
}

/// Receives a packet, and says whose it is. Nothing if none came in time, or it is none of these.
fn receive(socket: &UdpSocket, limit: Option<Duration>) -> Result<Option<(Packet, IpAddr)>> {
    socket.set_read_timeout(limit.map(|limit| limit.max(Duration::from_millis(1))))?;
    let mut bytes = [0; LONGEST];
    let (count, from) = match socket.recv_from(&mut bytes) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
            return Ok(None);
        }
        result => result.context("can't receive")?,
    };
    let bytes = bytes.get(..count).unwrap_or_default();
    // Of IPv4 the header comes along (raw(7)).
    let header = bytes.first().filter(|_| from.is_ipv4()).map_or(0, |first| usize::from(first & 15) * 4);
    Ok(bytes.get(header..).and_then(Packet::decode).map(|packet| (packet, from.ip())))
}

/// Answers who wants an association with one of these ports, for ever.
fn serve(ports: &BTreeSet<u16>) -> Result<Outcome> {
    let (v4, v6) = (raw(true)?, raw(false)?);
    thread::scope(|scope| {
        let other = scope.spawn(|| answer(&v6, ports));
        answer(&v4, ports)?;
        other.join().unwrap_or_else(|_| bail!("a thread has panicked"))
    })?;
    Ok(Outcome::Connected)
}

fn answer(socket: &UdpSocket, ports: &BTreeSet<u16>) -> Result<()> {
    loop {
        let Some((packet, from)) = receive(socket, None)? else { continue };
        if let Some(reply) = reply(&packet, ports) {
            // Who is gone by now asks no more.
            let _gone = socket.send_to(&reply.encode(), SocketAddr::new(from, 0));
        }
    }
}

/// What a server says to a packet. It remembers nothing: the cookie has both tags.
fn reply(packet: &Packet, ports: &BTreeSet<u16>) -> Option<Packet> {
    if !ports.contains(&packet.to) {
        return None;
    }
    let back = |tag, kind, body| Packet { from: packet.to, to: packet.from, tag, kind, body };
    match packet.kind {
        Kind::Init => {
            let (theirs, ours) = (packet::tag_of(&packet.body)?, TAG);
            Some(back(theirs, Kind::InitAck, packet::init_ack(ours, &theirs.to_be_bytes())))
        }
        Kind::CookieEcho if packet.tag == TAG => Some(back(packet::tag_of(&packet.body)?, Kind::CookieAck, Vec::new())),
        _ => None,
    }
}

/// Sets up an association, and ends it.
fn connect(to: SocketAddr, limit: Duration) -> Result<Outcome> {
    let socket = raw(to.is_ipv4())?;
    let end = Instant::now() + limit;
    let seed = std::process::id().wrapping_mul(0x9e37_79b1) ^ UNIX_EPOCH.elapsed().unwrap_or_default().subsec_nanos();
    let (own, tag) = (32_768 + (seed % 28_000) as u16, seed | 1);
    let message = |tag, kind, body| Packet { from: own, to: to.port(), tag, kind, body };
    let mut next = message(0, Kind::Init, packet::init(tag));
    let mut due = Instant::now();
    while Instant::now() < end {
        if Instant::now() >= due {
            // The kernel may have heard that there is no way: that may change.
            let _unsent = socket.send_to(&next.encode(), SocketAddr::new(to.ip(), 0));
            due = Instant::now() + AGAIN;
        }
        let wait = due.min(end).saturating_duration_since(Instant::now());
        // An ICMP error about what was sent is none.
        let Ok(Some((packet, from))) = receive(&socket, Some(wait)) else { continue };
        if from != to.ip() || (packet.from, packet.to, packet.tag) != (to.port(), own, tag) {
            continue;
        }
        match packet.kind {
            Kind::InitAck => {
                let (Some(theirs), Some(cookie)) = (packet::tag_of(&packet.body), packet::cookie_of(&packet.body))
                else {
                    bail!("{to} answers with an INIT ACK that is broken");
                };
                next = message(theirs, Kind::CookieEcho, cookie);
                due = Instant::now();
            }
            Kind::CookieAck => {
                let _gone =
                    socket.send_to(&message(next.tag, Kind::Abort, Vec::new()).encode(), SocketAddr::new(to.ip(), 0));
                return Ok(Outcome::Connected);
            }
            Kind::Abort => return Ok(Outcome::Refused),
            Kind::Init | Kind::CookieEcho => {}
        }
    }
    Ok(Outcome::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_of_the_environment() {
        let variables =
            [("SERVE_SCTP_PORT_9003", "x"), ("SERVE_PORT_80", "y"), ("SERVE_SCTP_PORT_", ""), ("HOME", "/")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(ports(variables.into_iter()), BTreeSet::from([9003]));
    }

    #[test]
    fn arguments_are_those_of_agnhost() {
        let parsed = |arguments: &[&str]| parse(&arguments.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        let (to, limit) = parsed(&["10.0.0.1:9003", "--timeout=500ms", "--protocol=sctp"]).unwrap();
        assert_eq!((to, limit), ("10.0.0.1:9003".parse().unwrap(), Duration::from_millis(500)));
        assert_eq!(parsed(&["--timeout=1s", "[fd00::1]:80"]).unwrap().1, Duration::from_secs(1));
        for wrong in [&["--timeout=soon", "10.0.0.1:1"][..], &[], &["10.0.0.1:1", "--protocol=tcp"]] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_association_takes_two_answers_and_other_ports_none() {
        let ports = BTreeSet::from([9003]);
        let said = |to, tag, kind, body| reply(&Packet { from: 40_000, to, tag, kind, body }, &ports);
        let ack = said(9003, 0, Kind::Init, packet::init(7)).unwrap();
        assert_eq!((ack.kind, ack.tag, ack.to), (Kind::InitAck, 7, 40_000));
        let (tag, cookie) = (packet::tag_of(&ack.body).unwrap(), packet::cookie_of(&ack.body).unwrap());
        assert_eq!(said(9003, tag.wrapping_add(1), Kind::CookieEcho, cookie.clone()), None);
        let end = said(9003, tag, Kind::CookieEcho, cookie).unwrap();
        assert_eq!((end.kind, end.tag), (Kind::CookieAck, 7));
        assert_eq!(said(9005, 0, Kind::Init, packet::init(7)), None);
    }
}
