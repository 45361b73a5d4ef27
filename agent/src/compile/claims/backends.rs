//! Endpoints that lead to where nodes take what others send them through the tunnel: a client of the Service would have its own
//! node send there what the other takes for that node's.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use fairlead_objects::{EndpointPort, EndpointSlice};

use super::{Claimed, Refusal, Why};
use crate::model::Reserved;

/// The slices of a Service without such endpoints, and those.
pub(super) fn admitted<'a>(
    slices: Vec<Cow<'a, EndpointSlice>>,
    reserved: &Reserved,
) -> (Vec<Cow<'a, EndpointSlice>>, Vec<Refusal>) {
    let (mut admitted, mut refusals) = (Vec::new(), Vec::new());
    for slice in slices {
        let leads = |port: &EndpointPort, ip: IpAddr| {
            port.port.is_some_and(|number| reserved.is_tunnel(ip, number, port.protocol))
        };
        let refused = |ip: IpAddr| slice.ports.iter().any(|port| leads(port, ip));
        let first = |addresses: &[IpAddr]| addresses.first().copied();
        let (bad, good): (Vec<_>, Vec<_>) =
            slice.endpoints.iter().cloned().partition(|endpoint| first(&endpoint.addresses).is_some_and(refused));
        if bad.is_empty() {
            admitted.push(slice);
            continue;
        }
        for (port, ip) in slice.ports.iter().flat_map(|port| bad.iter().map(move |end| (port, first(&end.addresses)))) {
            if let (Some(ip), Some(number)) = (ip.filter(|ip| leads(port, *ip)), port.port) {
                let address = SocketAddr::new(ip, number);
                refusals.push(Refusal {
                    claimed: Claimed::Endpoint,
                    address,
                    protocol: port.protocol,
                    why: Why::Tunnel,
                });
            }
        }
        // Slices are a union: one with the other endpoints, and one with these at their other ports.
        let others = slice
            .ports
            .iter()
            .filter(|port| !bad.iter().any(|end| first(&end.addresses).is_some_and(|ip| leads(port, ip))));
        admitted.push(Cow::Owned(EndpointSlice {
            ports: others.cloned().collect(),
            endpoints: bad,
            ..(*slice).clone()
        }));
        admitted.push(Cow::Owned(EndpointSlice { endpoints: good, ..slice.into_owned() }));
    }
    refusals.sort();
    refusals.dedup();
    (admitted, refusals)
}
