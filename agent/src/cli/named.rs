//! A Service by its name, where an address can be given too.

use std::net::SocketAddr;
use std::str::FromStr;

use crate::admin::ServiceView;

/// What `fairlead service explain` is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// An address.
    Address(SocketAddr),
    /// The addresses of a Service: all its ports, or the one of this number or name.
    Service {
        /// `namespace/name`.
        service: String,
        /// Its port.
        port: Option<String>,
    },
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let (service, port) = match text.rsplit_once(':') {
            Some((service, port)) => (service, Some(port)),
            None => (text, None),
        };
        let is_name = |part: &str| {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
            !part.is_empty() && part.chars().all(fits)
        };
        match service.split_once('/') {
            Some((namespace, name)) if [namespace, name].into_iter().chain(port).all(is_name) => {
                Ok(Self::Service { service: service.to_owned(), port: port.map(str::to_owned) })
            }
            _ => Err(format!(
                "{text:?} is neither an address with a port, as 10.96.0.10:53 or [fd00:10:96::a]:53, nor a Service, as \
                 kube-system/kube-dns:dns"
            )),
        }
    }
}

/// The addresses of a Service, of one port if that is named. What a NodePort has at every address of the node is left out.
pub(super) fn addresses(rows: &[ServiceView], service: &str, port: Option<&str>) -> Result<Vec<SocketAddr>, String> {
    let of_service: Vec<_> = rows.iter().filter(|row| row.service == service).collect();
    if of_service.is_empty() {
        return Err(format!("no service {service}: see `fairlead service list`"));
    }
    let is = |row: &&&ServiceView| port.is_none_or(|port| row.port_name == port || row.port.to_string() == port);
    let of_port: Vec<_> = of_service.iter().filter(is).collect();
    if of_port.is_empty() {
        let ports = of_service.iter().map(|row| match row.port_name.as_str() {
            "" => format!("{}/{}", row.port, row.protocol),
            name => format!("{name} ({}/{})", row.port, row.protocol),
        });
        let ports = ports.collect::<Vec<_>>().join(", ");
        return Err(format!("service {service} has no port {}, only {ports}", port.unwrap_or_default()));
    }
    if of_port.iter().all(|row| row.headless) {
        return Err(format!(
            "service {service} is headless: it has no address, and its name leads to its endpoints, of which {} are ready",
            of_port.iter().map(|row| row.endpoints).max().unwrap_or_default()
        ));
    }
    // TCP and UDP of one number are explained together.
    let mut found = Vec::new();
    for address in of_port.iter().flat_map(|row| &row.addresses) {
        if !address.ip().is_unspecified() && !found.contains(address) {
            found.push(*address);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(port_name: &str, port: u16, protocol: &str, addresses: &[&str]) -> ServiceView {
        ServiceView {
            service: "kube-system/kube-dns".into(),
            kind: "ClusterIP".into(),
            port_name: port_name.into(),
            port,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            protocol: protocol.into(),
            headless: addresses.is_empty(),
            endpoints: 2,
            endpoints_ipv4: 2,
            endpoints_ipv6: 0,
            internal_policy: "Cluster".into(),
            external_policy: "Cluster".into(),
        }
    }

    #[test]
    fn an_address_or_a_service_is_asked_about() {
        let service = |service: &str, port: Option<&str>| {
            Ok(Asked::Service { service: service.into(), port: port.map(Into::into) })
        };
        assert_eq!("10.96.0.10:53".parse(), Ok(Asked::Address("10.96.0.10:53".parse().unwrap())));
        assert_eq!("[fd00::a]:53".parse(), Ok(Asked::Address("[fd00::a]:53".parse().unwrap())));
        assert_eq!("kube-system/kube-dns".parse::<Asked>(), service("kube-system/kube-dns", None));
        assert_eq!("kube-system/kube-dns:dns".parse::<Asked>(), service("kube-system/kube-dns", Some("dns")));
        for wrong in ["10.96.0.10", "kube-dns", "a/b/c", "a/", "/b", "a/b:", "A/b", "fd00::a"] {
            assert!(wrong.parse::<Asked>().unwrap_err().contains("kube-system/kube-dns:dns"), "{wrong}");
        }
    }

    #[test]
    fn a_port_is_found_by_name_and_by_number() {
        let both = ["10.96.0.10:53", "[fd00:10:96::a]:53"];
        let rows = [
            row("dns", 53, "UDP", &both),
            row("dns-tcp", 53, "TCP", &[&both[..], &["0.0.0.0:30053"]].concat()),
            row("metrics", 9153, "TCP", &["10.96.0.10:9153"]),
        ];
        let found = |port| {
            let found = addresses(&rows, "kube-system/kube-dns", port)?;
            Ok::<_, String>(found.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(found(Some("dns")).unwrap(), both);
        assert_eq!(found(Some("53")).unwrap(), both, "once, though two ports have the number");
        assert_eq!(found(Some("metrics")).unwrap(), ["10.96.0.10:9153"]);
        assert_eq!(found(None).unwrap().len(), 3);
        assert!(found(Some("http")).unwrap_err().contains("dns-tcp (53/TCP)"));
        assert!(addresses(&rows, "shop/cart", None).unwrap_err().contains("no service shop/cart"));
        let headless = addresses(&[row("db", 5432, "TCP", &[])], "kube-system/kube-dns", None).unwrap_err();
        assert!(headless.contains("headless") && headless.contains('2'), "{headless}");
    }
}
