//! The node's interfaces.

use std::path::Path;

use aya::programs::{SchedClassifier, TcAttachType};
use fairlead_cni::protocol::HOST_LINK_PREFIX;
use fairlead_objects::causes;

use super::super::facts::{Facts, UplinkFacts};
use crate::wiring::{Netlink, Sysctls, Uplink, WiringError};

/// Programs of ours, at the uplinks' ingress and egress.
const OURS: [(TcAttachType, [&str; 2]); 2] =
    [(TcAttachType::Ingress, ["from_uplink", "from_bare"]), (TcAttachType::Egress, ["to_uplink", "to_bare"])];

pub(super) async fn links(proc_sys: &Path, facts: &mut Facts) {
    let listed = async {
        let netlink = Netlink::open()?;
        Ok::<_, WiringError>((netlink.uplinks(&[]).await?, netlink.mtus().await?))
    };
    let (uplinks, mtus) = match listed.await {
        Ok(listed) => listed,
        Err(error) => return facts.unseen.push(("the node's interfaces".to_owned(), error.to_string())),
    };
    let sysctls = Sysctls::new(proc_sys, Path::new("/"));
    for Uplink { name, mtu, paces, .. } in uplinks.into_iter().filter(|uplink| uplink.is_primary) {
        let (mut before, mut unseen) = (Vec::new(), None);
        for (direction, own) in OURS {
            match SchedClassifier::query_tcx(&name, direction) {
                Ok((_, programs)) => {
                    let names = programs.iter().map(|program| program.name_as_str().unwrap_or("?").to_owned());
                    before.extend(names.take_while(|name| !own.contains(&name.as_str())));
                }
                // Kernels before 6.6 have no such list, and only an administrator of all sees what others have attached.
                Err(error) => unseen = Some(causes(&error)),
            }
        }
        facts.unseen.extend(unseen.map(|why| (format!("programs at {name}"), why)));
        facts.uplinks.push(UplinkFacts { strict: sysctls.is_strict(&name), name, mtu, paces, before });
    }
    facts.pods = mtus.into_iter().filter(|(name, _)| name.starts_with(HOST_LINK_PREFIX)).collect();
}
