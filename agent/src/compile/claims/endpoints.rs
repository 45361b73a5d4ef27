//! Endpoints of Services that name what is no pod's and no server's.
//!
//! A Service leads those there who may not go there themselves: whoever may write an EndpointSlice would reach through it what
//! is of the node alone, or closed to pods. The API server refuses loopback and link-local endpoints (`ValidateNonSpecialIP` in
//! kubernetes/pkg/apis/core/validation), but knows of no metadata service with another address.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use fairlead_objects::{Endpoint, EndpointSlice, Protocol, Service};

use super::frontends::{Claimed, Refusal, Why};
use crate::model::Rules;

/// The slices of a service without the endpoints that it may not have, and which those are.
pub(super) fn settle<'a>(
    service: &Service,
    slices: Vec<&'a EndpointSlice>,
    rules: &Rules,
) -> (Vec<Cow<'a, EndpointSlice>>, Vec<Refusal>) {
    let mut refused = BTreeMap::new();
    let mut settled = |slice: &'a EndpointSlice| {
        // The first of an endpoint's addresses alone counts.
        let barred = |endpoint: &Endpoint| endpoint.addresses.first().and_then(|ip| Some((*ip, judge(*ip, rules)?)));
        let found: Vec<_> = slice.endpoints.iter().filter_map(barred).collect();
        if found.is_empty() {
            return Cow::Borrowed(slice);
        }
        refused.extend(found);
        let mut slice = slice.clone();
        slice.endpoints.retain(|endpoint| barred(endpoint).is_none());
        Cow::Owned(slice)
    };
    let slices = slices.into_iter().map(&mut settled).collect();
    // Of a service that is not proxied nothing leads to its endpoints.
    let refused = if service.is_proxied() { refused } else { BTreeMap::new() };
    let refusal = |(ip, why)| Refusal {
        claimed: Claimed::Endpoint,
        address: SocketAddr::new(ip, 0),
        protocol: Protocol::Tcp,
        why,
    };
    (slices, refused.into_iter().map(refusal).collect())
}

/// Why an address can't be an endpoint's.
fn judge(ip: IpAddr, rules: &Rules) -> Option<Why> {
    if rules.is_metadata(ip) {
        return Some(Why::Metadata);
    }
    let ip = ip.to_canonical();
    let of_a_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    (of_a_link || ip.is_loopback() || ip.is_multicast()).then_some(Why::NoServer)
}
