//! Which servers are upstream.

use std::net::{IpAddr, SocketAddr};

/// Why an upstream server can't be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// It can't be read.
    #[error(
        "{0:?} is not a server: write an address, as 192.0.2.1 or 2001:db8::1, or with a port, as [2001:db8::1]:53"
    )]
    Address(String),
    /// It is this server itself.
    #[error("the upstream server {0} is this server itself: its questions would go round for ever; name another")]
    Loop(SocketAddr),
}

/// Reads `ADDR` or `ADDR:port`; the port is 53 without it.
///
/// # Errors
/// It is neither.
pub fn parse_upstream(text: &str) -> Result<SocketAddr, UpstreamError> {
    let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    address.or_else(|_| text.parse()).map_err(|_| UpstreamError::Address(text.to_owned()))
}

/// The name servers of a resolv.conf(5). Lines that can't be read are left out.
#[must_use]
pub fn from_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? == "nameserver" { words.next()?.parse::<IpAddr>().ok() } else { None }
    });
    servers.map(|ip| SocketAddr::new(ip, 53)).collect()
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
        assert!(parse_upstream("dns.example").unwrap_err().to_string().contains("dns.example"));
    }

    #[test]
    fn d31_reads_resolv_conf() {
        let text =
            "# generated\nsearch a b\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver no\noptions ndots:5\n";
        assert_eq!(from_resolv_conf(text), addresses(&["192.0.2.1:53", "[2001:db8::1]:53"]));
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
