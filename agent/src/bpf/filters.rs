//! Programs as filters of the clsact qdisc. They need no pin and stay until somebody removes them.

use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use tracing::debug;

use crate::repair::FilterPlace;

/// The priority of filters of one purpose. It and the handle are fixed, so that the next agent replaces them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rank(pub(super) u16);

impl Rank {
    /// The programs themselves, where there is no tcx.
    pub(super) const PROGRAM: Self = Self(50);
    /// The guards, behind them.
    pub(super) const GUARD: Self = Self(60);
}

/// Replaces our filter, or adds it where there is none. It outlives the process, since its link is forgotten.
pub(super) fn attach(
    program: &mut SchedClassifier,
    link: &str,
    FilterPlace { ingress, priority, .. }: FilterPlace,
) -> Result<(), ProgramError> {
    let direction = if ingress { TcAttachType::Ingress } else { TcAttachType::Egress };
    // An existing qdisc is no error: ours from before, or another's.
    if let Err(error) = tc::qdisc_add_clsact(link) {
        debug!(link, %error, "clsact qdisc not added");
    }
    let handle = TcHandle::new(0, 1);
    let id = match SchedClassifierLink::attached(link, direction, priority, handle, None)
        .map_err(ProgramError::from)
        .and_then(|old| program.attach_to_link(old))
    {
        Ok(id) => id,
        Err(_) => {
            let options = TcAttachOptions::Netlink(NlOptions { priority, handle, classid: None });
            program.attach_with_options(link, direction, options)?
        }
    };
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// Removes our filter from an interface.
pub(super) fn remove(link: &str, ingress: bool, program: &str) -> std::io::Result<()> {
    let direction = if ingress { TcAttachType::Ingress } else { TcAttachType::Egress };
    tc::qdisc_detach_program(link, direction, program).map_err(std::io::Error::other)
}

/// The program that drops whatever none before it has decided on.
pub(super) const GUARD: &str = "fairlead_guard";

/// Filters that may be left when pods' links and the tunnel's device are gone: on kernels without tcx those of uplinks, and
/// the guards of links that could not be deleted.
const LEFT: [(TcAttachType, &str); 4] = [
    (TcAttachType::Ingress, "from_uplink"),
    (TcAttachType::Egress, "to_uplink"),
    (TcAttachType::Ingress, GUARD),
    (TcAttachType::Egress, GUARD),
];

/// Removes filters, which have no pins to go with.
pub fn remove_filters() {
    let links = nix::net::if_::if_nameindex();
    for link in links.iter().flat_map(|links| links.iter()) {
        let name = link.name().to_string_lossy();
        for (direction, program) in LEFT {
            if let Err(error) = tc::qdisc_detach_program(&name, direction, program) {
                debug!(link = %name, program, %error, "no filter to remove");
            }
        }
    }
}
