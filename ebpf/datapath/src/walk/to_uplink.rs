//! What leaves the node: tcx egress of an uplink. Pods' packets to the outside get the uplink's address here, after the
//! host's stack has chosen the way. What a process of the node answers as a service's backend gets the service's
//! address back. Everything else passes untouched.

use super::address::Whose;
use super::address::stage::look_up;
use super::errors::Side;
use super::errors::stage::relate;
use super::opening::begins;
use super::{Action, answer, give_way};
use crate::Addr;
use crate::drop::DropReason;
use crate::flow::stage::{forget, translate_at_uplink};
use crate::flow::{self, At, FlowFlags, FragmentKey};
use crate::kernel::Kernel;
use crate::packet::stage::parse;
use crate::packet::{Class, rewrite};
use crate::peer::NO_SLOT;
use crate::scratch::Walk;

/// The walk of a packet that leaves the node. Without the mark it is the host's own.
#[inline(always)]
pub fn to_uplink<K: Kernel>(k: &K, w: &mut Walk, ether_type: u16) -> Action {
    w.begin();
    let Some(config) = k.config() else { return Action::PASS };
    let own = k.mark() & config.mark == 0;
    // What programs sent here past the stack came in somewhere, and is what it has to be.
    if own && k.ingress_ifindex() != 0 {
        return Action::PASS;
    }
    if parse(k, w, ether_type).is_err() {
        return Action::PASS;
    }
    if own {
        // An error about an answer to a pod quotes the pod, whom the other end does not know.
        let is_asked = answer::may_be_one(k) || w.packet.class == Class::ERROR;
        let action = if is_asked { answer::turn_back(k, w) } else { Action::PASS };
        if action != Action::PASS {
            return action;
        }
        let action = give_way::leave(k, w, NO_SLOT);
        return if action.delivers() { Action::PASS } else { action };
    }
    let sender = FragmentKey::from_node(w.packet.tuple.src);
    if !flow::resolve_fragment(k, &mut w.packet, sender) {
        return Action::drop(DropReason::Fragment);
    }
    if w.packet.class == Class::ERROR {
        let action = relate(k, w, Side::Leaving, NO_SLOT);
        if !action.goes_on() {
            return if action.delivers() { Action::PASS } else { action };
        }
    }
    let Some(place) = flow::find(k, w, At::EgressUplink) else {
        // Without a flow it would leave with the pod's address, and no answer could come back.
        look_up(k, w, Whose::Source);
        let from_pod = w.found.slot != NO_SLOT;
        return if from_pod { Action::drop(DropReason::Untranslated) } else { Action::PASS };
    };
    // What meets the far side has its address already: from an uplink on top of this one, as a VLAN's.
    if !place.forward || w.met.is(FlowFlags::FAR) || !w.met.is(FlowFlags::MASQUERADE | FlowFlags::AT_UPLINK) {
        return Action::PASS;
    }
    w.draft.target = w.met.other;
    let ifindex = k.ifindex();
    let uplink = k.uplink(ifindex).filter(|uplink| uplink.is_of(ifindex));
    let source = uplink.map_or(Addr::UNSPECIFIED, |uplink| if w.packet.v6 == 1 { uplink.v6 } else { uplink.v4 });
    if !w.met.is(FlowFlags::MASQUERADE) {
        // The route leads elsewhere by now, or the address is another: there no answer comes to the one before. What may begin anew does,
        // with the next packet.
        if source != Addr::UNSPECIFIED && source != w.draft.target.src && begins(&w.packet) {
            forget(k, w, place.table);
            return Action::drop(DropReason::FlowRace);
        }
    } else {
        if source == Addr::UNSPECIFIED {
            return Action::drop(DropReason::NoAddress);
        }
        w.draft.target = w.packet.tuple;
        w.draft.target.src = source;
        if let Err(reason) = translate_at_uplink(k, w) {
            return Action::drop(reason);
        }
    }
    let target = w.draft.target;
    if !rewrite(k, &mut w.packet, &target) {
        return Action::drop(DropReason::Rewrite);
    }
    Action::PASS
}
