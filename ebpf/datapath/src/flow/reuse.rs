//! Whether an entry that is in the way of a new one gives way to it.

use super::life::{has_expired, idle_for};
use crate::kernel::Kernel;
use crate::packet::stage::read_stamp;
use crate::packet::{TCP, UDP};
use crate::scratch::{Draft, Walk};
use crate::tables::flow::{Flow, FlowFlags, FlowState, Table};

/// Whether what is in the place of the draft's flow may be replaced by it.
#[inline(always)]
pub(super) fn gives_way<K: Kernel>(k: &K, there: &Flow, proto: u8, draft: &Draft) -> bool {
    let (now, new) = (k.seconds(), &draft.flow);
    // What is kept of a pod that is gone is kept to tell the other end, if there is room for it.
    if has_expired(k, there, proto, now) || there.state.value & FlowState::GONE != 0 {
        return true;
    }
    if there.is(FlowFlags::NEAR) || !new.is(FlowFlags::FAR) {
        return false;
    }
    let far = there.is(FlowFlags::FAR);
    // This flow's own, whose near entry is gone.
    if far && there.other == new.other {
        return true;
    }
    // A connection straight to the receiver that is over is as good as one through a service.
    let same_opener = there.is(FlowFlags::OPENER_IS_A) == new.is(FlowFlags::OPENER_IS_A);
    match proto {
        TCP => same_opener && tcp_is_over(there, new.isn, draft.stamp),
        // A question that was answered: nothing is to come any more, most likely. Taken if ports are short only.
        UDP if far => {
            let state = there.state.value;
            draft.idle != 0
                && (draft.over == 0 || there.opener.slot == new.opener.slot)
                && state & (FlowState::REPLIED | FlowState::STREAM) == FlowState::REPLIED
                && idle_for(there, now) >= draft.idle
        }
        _ => false,
    }
}

/// Has the flow that the SYN in `w` opens keep the source port of the one in `w.met`, which is over, and which it follows between
/// the same ends: the responder may remember that one under it. If it could not tell the two apart it is not kept; only the opener's own may
/// be tried again, as it would be without translation.
#[inline(always)]
pub fn keep_port<K: Kernel>(k: &K, w: &mut Walk, table: Table) {
    let over = w.met.state.value;
    if !w.met.is(FlowFlags::NEAR) || over & FlowState::GONE != 0 {
        return;
    }
    let stamp = read_stamp(k, w);
    let Walk { draft, met, own, packet, .. } = w;
    let forgotten = over & FlowState::RESET != 0;
    let told_apart = k.flow(table, &draft.key).is_some_and(|entry| k.copy(entry, draft.key.tag(), own))
        && tcp_is_over(own, packet.seq, stamp);
    if forgotten || told_apart {
        draft.again = met.other.sport;
    }
}

/// Whether the responder of a connection takes a SYN of another one for it (`isn` as on the wire), since it has forgotten the
/// connection, or can tell the two apart.
#[inline(always)]
fn tcp_is_over(there: &Flow, isn: u32, stamp: u32) -> bool {
    let state = there.state.value;
    // An RST may be anybody's: it does not prove that the responder has forgotten the connection. It expires soon.
    if state & FlowState::FINS != FlowState::FINS {
        return false;
    }
    // The opener closed first and has acknowledged the responder's FIN, which therefore does not wait.
    if state & (FlowState::RESPONDER_FIRST | FlowState::LAST_ACK) == FlowState::LAST_ACK {
        return true;
    }
    is_newer(isn, stamp, there.last_seq.value, there.last_stamp.value)
}

/// Whether a SYN is newer than a connection that its receiver still waits for the end of: RFC 6191 section 2, as Linux has it
/// (`tcp_timewait_state_process`), which refuses an older timestamp whatever the number.
#[inline(always)]
fn is_newer(isn: u32, stamp: u32, last_seq: u32, last_stamp: u32) -> bool {
    let after = |new: u32, old: u32| (new.wrapping_sub(old) as i32) > 0;
    if stamp != 0 && last_stamp != 0 { after(stamp, last_stamp) } else { after(u32::from_be(isn), last_seq) }
}

#[cfg(test)]
mod tests {
    use super::is_newer;

    #[test]
    fn a_newer_timestamp_or_without_any_a_newer_number_tells_connections_apart() {
        let wire = u32::to_be;
        assert!(is_newer(wire(1), 11, 1000, 10));
        assert!(!is_newer(wire(2000), 10, 1000, 10));
        assert!(!is_newer(wire(2000), 9, 1000, 10));
        assert!(is_newer(wire(1001), 0, 1000, 0));
        assert!(is_newer(wire(1001), 0, 1000, 10));
        assert!(!is_newer(wire(1000), 0, 1000, 0));
        assert!(is_newer(wire(5), 0, u32::MAX - 5, 0), "numbers wrap");
    }
}
