//! The kernel's tables of policy, asked as the programs ask them.

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::{CidrKey, Peer, Pod, PodWord};
use fairlead_datapath::policy::{PeerKey, PolicySet, PortKey, RangeKey, Row, Tables as PolicyTables, decide};
use fairlead_datapath::{Addr, WirePort};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::bpf::Tables;
use crate::compile::policy::{Direction, Judged};

/// How often a row is read that is being replaced meanwhile.
const ATTEMPTS: u32 = 3;

/// The tables, for reading.
pub(super) struct InKernel<'a>(pub(super) &'a Tables);

impl InKernel<'_> {
    fn get<T: FromBytes>(&self, table: TableId, key: &(impl IntoBytes + Immutable)) -> Option<T> {
        let value = self.0.map(table).and_then(|map| map.get(key.as_bytes())).ok().flatten()?;
        T::read_from_bytes(&value).ok()
    }

    fn class(&self, addr: Addr) -> Option<u32> {
        for _ in 0..ATTEMPTS {
            match self.get::<Peer>(TableId::Peers, &addr) {
                Some(peer) if peer.is_of(addr.tag()) => return Some(peer.class),
                Some(_) => {}
                None => {
                    let prefix: Option<Peer> = self.get(TableId::Cidrs, &CidrKey::lookup(addr));
                    return Some(prefix.unwrap_or(Peer::WORLD).class);
                }
            }
        }
        None
    }

    /// Whether a flow may pass in a direction; nothing where the tables can't be read.
    pub(super) fn verdict(&self, judged: &Judged) -> Option<bool> {
        let Judged { slot, direction, flow, own, allow: _ } = judged;
        let pod: Pod = self.get(TableId::Pods, &u32::from(*slot))?;
        let word = PodWord(pod.word);
        let set = match direction {
            Direction::Ingress => word.ingress(),
            Direction::Egress => word.egress(),
        };
        let class = self.class(Addr::from(flow.peer))?;
        Some(decide(self, set, class, flow.proto, WirePort::new(flow.port), *own, &mut 0).allow())
    }
}

impl PolicyTables for InKernel<'_> {
    fn policy_set(&self, index: u32) -> Option<PolicySet> {
        self.get(TableId::PolicySets, &index)
    }

    fn policy_peers(&self, key: &PeerKey) -> Option<Row> {
        self.get(TableId::PolicyPeers, key)
    }

    fn policy_ports(&self, key: &PortKey) -> Option<Row> {
        self.get(TableId::PolicyPorts, key)
    }

    fn policy_range(&self, key: &RangeKey) -> Option<Row> {
        self.get(TableId::PolicyRanges, key)
    }
}
