//! Which servers are upstream.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;

use super::tls::Tls;
use crate::WireName;

/// What questions go over.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Over {
    /// UDP, and TCP for what does not fit.
    #[default]
    Udp,
    /// TCP.
    Tcp,
    /// TLS.
    Tls(Tls),
}

/// A server to ask.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Where it is.
    pub address: SocketAddr,
    /// What questions go over.
    pub over: Over,
}

impl From<SocketAddr> for Upstream {
    /// One that is asked over UDP, and over TCP where that does not do.
    fn from(address: SocketAddr) -> Self {
        Self { address, over: Over::Udp }
    }
}

/// Why an upstream server can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// It can't be read.
    #[error(
        "{0:?} is not a server: write an address such as 192.0.2.1 or 2001:db8::1, or with a port, such as \
         [2001:db8::1]:53"
    )]
    Address(String),
    /// A stub domain can't be read.
    #[error(
        "{0:?} is not a stub domain: write DOMAIN=SERVER, with more servers after commas, such as \
         corp.example=192.0.2.1,192.0.2.2"
    )]
    Stub(String),
    /// It is this server itself.
    #[error("the upstream server {0} is this server itself: queries would loop forever; name another")]
    Loop(SocketAddr),
}

/// Reads `ADDR`, `ADDR:port`, or a link-local address with its interface, as `fe80::1%eth0`; the port is 53 without one.
///
/// # Errors
/// It is neither.
pub fn parse_upstream(text: &str) -> Result<SocketAddr, UpstreamError> {
    let wrong = || UpstreamError::Address(text.to_owned());
    let Some((address, rest)) = text.split_once('%') else {
        let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        return address.or_else(|_| text.parse()).map_err(|_| wrong());
    };
    // `fe80::1%eth0`, or `[fe80::1%eth0]:53`.
    let (interface, port) = match address.strip_prefix('[') {
        None => (rest, 53),
        Some(_) => {
            let (interface, port) = rest.split_once(']').ok_or_else(wrong)?;
            let port = port.strip_prefix(':').map_or(Ok(53), str::parse).map_err(|_| wrong())?;
            (interface, port)
        }
    };
    let address: Ipv6Addr = address.trim_start_matches('[').parse().map_err(|_| wrong())?;
    let scope = interface.parse().or_else(|_| if_nametoindex(interface)).map_err(|_| wrong())?;
    Ok(SocketAddrV6::new(address, port, 0, scope).into())
}

/// Reads `DOMAIN=SERVER[,SERVER...]`.
///
/// # Errors
/// It is something else.
pub fn parse_stub(text: &str) -> Result<(WireName, Vec<SocketAddr>), UpstreamError> {
    let (domain, servers) = text.split_once('=').ok_or_else(|| UpstreamError::Stub(text.to_owned()))?;
    let domain = WireName::parse(domain.trim()).map_err(|_| UpstreamError::Stub(text.to_owned()))?;
    let servers: Result<Vec<_>, _> = servers.split(',').map(|server| parse_upstream(server.trim())).collect();
    Ok((domain, servers?))
}

/// The name servers of a resolv.conf(5), and the lines that should name one and can't be read.
#[must_use]
pub fn from_resolv_conf(text: &str) -> (Vec<SocketAddr>, Vec<String>) {
    let (mut servers, mut unread) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        match words.next().map(parse_upstream) {
            Some(Ok(server)) => servers.push(server),
            _ => unread.push(line.to_owned()),
        }
    }
    (servers, unread)
}

/// Sorts out servers that are this one: `(others, this)`. `local` are the addresses of this machine.
#[must_use]
pub fn refuse_loops(
    upstreams: Vec<SocketAddr>,
    listen: &[SocketAddr],
    local: &[IpAddr],
) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
    let is_local = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified() || local.contains(&ip);
    upstreams.into_iter().partition(|upstream| {
        let ip = upstream.ip().to_canonical();
        !listen.iter().any(|listen| {
            let ours = listen.ip().to_canonical();
            listen.port() == upstream.port() && (ours == ip || ours.is_unspecified() && is_local(ip))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn d31_reads_upstreams() {
        assert_eq!(parse_upstream("192.0.2.1").unwrap(), "192.0.2.1:53".parse().unwrap());
        assert_eq!(parse_upstream("2001:db8::1").unwrap(), "[2001:db8::1]:53".parse().unwrap());
        assert_eq!(parse_upstream("[2001:db8::1]:5353").unwrap(), "[2001:db8::1]:5353".parse().unwrap());
        for scoped in ["fe80::1%lo", "[fe80::1%lo]:53", "fe80::1%1"] {
            let SocketAddr::V6(server) = parse_upstream(scoped).unwrap() else { panic!("{scoped}") };
            assert_eq!((server.scope_id(), server.port()), (1, 53), "{scoped}");
        }
        assert!(parse_upstream("fe80::1%no-such").is_err());
        assert!(parse_upstream("dns.example").unwrap_err().to_string().contains("dns.example"));
    }

    #[test]
    fn d31_reads_stub_domains() {
        let (domain, servers) = parse_stub("Corp.example=192.0.2.1, [2001:db8::1]:5353").unwrap();
        assert_eq!(domain.to_string(), "corp.example.");
        assert_eq!(servers, addresses(&["192.0.2.1:53", "[2001:db8::1]:5353"]));
        for wrong in ["corp.example", "a..b=192.0.2.1", "corp.example="] {
            assert!(parse_stub(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn d31_reads_resolv_conf() {
        let text =
            "# generated\nsearch a b\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver no\noptions ndots:5\n";
        let (servers, unread) = from_resolv_conf(text);
        assert_eq!(servers, addresses(&["192.0.2.1:53", "[2001:db8::1]:53"]));
        assert_eq!(unread, ["nameserver no"]);
    }

    #[test]
    fn d31_the_server_is_not_its_own_upstream() {
        let upstreams = addresses(&["127.0.0.53:53", "10.0.0.1:53", "10.0.0.1:54", "192.0.2.1:53"]);
        let local = ["10.0.0.1".parse().unwrap()];
        let (others, own) = refuse_loops(upstreams.clone(), &addresses(&["[::]:53"]), &local);
        assert_eq!(others, addresses(&["10.0.0.1:54", "192.0.2.1:53"]));
        assert_eq!(own, addresses(&["127.0.0.53:53", "10.0.0.1:53"]));
        let (others, _) = refuse_loops(upstreams, &addresses(&["10.0.0.1:53"]), &local);
        assert_eq!(others, addresses(&["127.0.0.53:53", "10.0.0.1:54", "192.0.2.1:53"]));
    }
}
