//! The MAC addresses of other nodes, kept known.
//!
//! Packets to another node's pods leave by `bpf_redirect_neigh` towards the node's address. Were its MAC unknown, the
//! first of them would wait for the answer to a solicitation, a second longer if that is lost. The kernel keeps a
//! *managed* neighbour resolved by itself (`NTF_EXT_MANAGED`, from 5.16 on).

use std::collections::BTreeSet;
use std::net::IpAddr;

use futures::TryStreamExt;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteProtocol;

use super::{Kept, NODE_ROUTE_PROTOCOL, Netlink, NodeRoute, Via, WiringError};

/// A node on the other side of an uplink.
type Neighbour = (u32, IpAddr);

/// The next hops of routes that are on the network of one of these interfaces, each with its interface. No node is behind one
/// that is not primary, whatever addresses its network has.
#[must_use]
pub fn neighbours(uplinks: &[super::Uplink], routes: &BTreeSet<NodeRoute>) -> BTreeSet<Neighbour> {
    let uplink_of = |hop: IpAddr| {
        let uplink = uplinks.iter().find(|uplink| uplink.is_primary && uplink.reaches(hop));
        uplink.map(|uplink| (uplink.ifindex, hop))
    };
    let next_hop = |route: &NodeRoute| match route.via {
        Via::Node(hop) => Some(hop),
        Via::Nobody | Via::Tunnel(_) | Via::Services(_) => None,
    };
    routes.iter().filter_map(next_hop).filter_map(uplink_of).collect()
}

impl Netlink {
    /// How many neighbours the kernel keeps for us.
    ///
    /// # Errors
    /// When the kernel refuses to list what exists.
    pub async fn managed_neighbours(&self) -> Result<usize, WiringError> {
        let list = self.handle.neighbours().get().execute();
        let listed: Vec<NeighbourMessage> =
            list.try_collect().await.map_err(|e| WiringError::kernel("list neighbours", &e))?;
        Ok(listed.iter().filter(|message| ours(message).is_some()).count())
    }

    /// Makes these, and no others of ours, be neighbours that the kernel keeps resolved. One that the kernel refuses does
    /// not keep the others from being made.
    ///
    /// # Errors
    /// When the kernel refuses to list what exists.
    pub async fn keep_neighbours(&self, wanted: &BTreeSet<Neighbour>) -> Result<Kept, WiringError> {
        let list = self.handle.neighbours().get().execute();
        let listed: Vec<NeighbourMessage> =
            list.try_collect().await.map_err(|e| WiringError::kernel("list neighbours", &e))?;
        let mut outcome = Kept::default();
        let mut kept = BTreeSet::new();
        for message in listed {
            let Some(neighbour) = ours(&message) else { continue };
            if wanted.contains(&neighbour) {
                kept.insert(neighbour);
            } else {
                let result = self.handle.neighbours().del(message).execute().await;
                let result = result.map_err(|e| WiringError::kernel(format!("delete {}", text(neighbour)), &e));
                outcome.note(|| format!("not {}", text(neighbour)), result);
            }
        }
        for &(ifindex, ip) in wanted.difference(&kept) {
            let mut request = self.handle.neighbours().add(ifindex, ip).state(NeighbourState::None).replace();
            // The kernel has one number of neighbours for all network namespaces, and forgets what is not marked as learned
            // elsewhere when somebody has filled it (`neigh_forced_gc` in net/core/neighbour.c).
            request.message_mut().header.flags = NeighbourFlags::ExtLearned;
            request.message_mut().attributes.extend([
                NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed),
                NeighbourAttribute::Protocol(RouteProtocol::Other(NODE_ROUTE_PROTOCOL)),
            ]);
            let result = request.execute().await;
            let result = result.map_err(|e| WiringError::kernel(format!("add {}", text((ifindex, ip))), &e));
            outcome.note(|| text((ifindex, ip)), result);
        }
        Ok(outcome)
    }
}

fn text((ifindex, ip): Neighbour) -> String {
    format!("the managed neighbour {ip} of interface {ifindex}")
}

/// A neighbour that was made here, known by its protocol number.
fn ours(message: &NeighbourMessage) -> Option<Neighbour> {
    let mark = NeighbourAttribute::Protocol(RouteProtocol::Other(NODE_ROUTE_PROTOCOL));
    message.attributes.contains(&mark).then_some(())?;
    let ip = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    Some((message.header.ifindex, ip))
}
