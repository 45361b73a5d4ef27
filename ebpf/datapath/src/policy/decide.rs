//! The decision.

use super::{
    ALLOW_ALL, ANY_PORT, DENY_ALL, MAX_PAGES, NO_BIT, OTHER_PROTOCOLS, PAGE_BITS, PeerKey, PolicySet, PortKey,
    RangeKey, Row, SetFlags, Tables,
};
use crate::WirePort;
use crate::bits::lowest_bit;
use crate::register::Register;

/// A verdict and its explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The rule that decided, or [`NO_BIT`].
    pub bit: u16,
    /// What was decided.
    pub outcome: Outcome,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Allowed: by the rule, or because no policy says otherwise.
    Allow,
    /// Denied by the rule.
    Denied,
    /// NetworkPolicies select the pod and none of their rules allows this.
    Isolated,
    /// The pod has no policy in force yet.
    Pending,
    /// A row of the set is missing: the agent's mistake, or a set that is gone. Denied.
    Missing,
    /// A row belonged to somebody else: the table changed under the reader. Denied.
    Race,
}

impl Decision {
    /// Whether the packet may pass.
    #[inline(always)]
    #[must_use]
    pub const fn allow(&self) -> bool {
        matches!(self.outcome, Outcome::Allow)
    }

    #[inline(always)]
    const fn without_rule(outcome: Outcome) -> Self {
        Self { bit: NO_BIT, outcome }
    }
}

/// Judges one direction of a new flow: `set` of the pod that is judged for, `class` of its peer, and the destination's
/// protocol and port after translation (as on the wire; [`ANY_PORT`] where there is none or it is not known, as in a
/// later fragment: then only rules that match every port of the protocol count).
///
/// `own`: the peer is the pod itself, by way of a Service. NetworkPolicies allow that (P32), and the tiers around them are
/// asked as about any other peer.
///
/// `passed`: gets the bit of the rule by which the Admin tier passed it on, if one did. (In memory, and not in the answer: the
/// verifier would walk the pages behind it once for each case.)
#[inline(always)]
#[must_use]
pub fn decide<T: Tables>(
    tables: &T,
    set: u32,
    class: u32,
    proto: u8,
    port: WirePort,
    own: bool,
    passed: &mut u32,
) -> Decision {
    let asked = Question { set, class, proto, port, own };
    decide_by(tables, &asked, passed, |key, class, ranges| page(tables, key, class, ranges))
}

/// What is to be decided on: see [`decide`].
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The policy set.
    pub set: u32,
    /// The class of the peer.
    pub class: u32,
    /// The protocol.
    pub proto: u8,
    /// The destination's port.
    pub port: WirePort,
    /// Whether the peer is the pod itself.
    pub own: bool,
}

/// The same, with [`page`] as somebody else calls it.
#[inline(always)]
#[must_use]
pub fn decide_by<T: Tables>(
    tables: &T,
    &Question { set, class, proto, port, own }: &Question,
    passed: &mut u32,
    page_of: impl Fn(PortKey, u32, bool) -> Result<Common, Outcome>,
) -> Decision {
    if set == ALLOW_ALL {
        return Decision::without_rule(Outcome::Allow);
    }
    if set == DENY_ALL {
        return Decision::without_rule(Outcome::Pending);
    }
    let Some(meta) = tables.policy_set(PolicySet::index(set)) else {
        return Decision::without_rule(Outcome::Missing);
    };
    if meta.id != set || meta.pages > MAX_PAGES || meta.admin_pages > meta.pages || meta.flags & !SetFlags::KNOWN != 0 {
        return Decision::without_rule(Outcome::Missing);
    }
    // What stays the same for every page is not branched on below: the verifier would walk each page once for each case. So
    // pages are bits, and what holds for one is asked of a copy.
    let (proto, port) = if matches!(proto, 6 | 17 | 132) { (proto, port) } else { (OTHER_PROTOCOLS, ANY_PORT) };
    let (open, own) = (u32::from(meta.flags / SetFlags::OPEN) & 1, u32::from(own));
    let admin = first_pages(meta.admin_pages);
    // Pages of tiers whose rules have actions, and those that are still to be asked.
    let acts = admin | all_pages_if(open);
    let mut left = first_pages(meta.pages) & (admin | !all_pages_if(own & !open));
    for page in 0..MAX_PAGES {
        if left >> page & 1 == 0 {
            continue;
        }
        let key = PortKey { set, port, proto, page: page as u8 };
        let Common { bit, action } = match page_of(key, class, meta.flags & SetFlags::RANGES != 0) {
            Ok(common) => common,
            Err(outcome) => return Decision::without_rule(outcome),
        };
        if bit >= PAGE_BITS {
            continue;
        }
        let decided = |outcome| Decision { bit: page * PAGE_BITS + bit, outcome };
        if acts >> page & 1 == 0 || action == ACCEPT {
            return decided(Outcome::Allow);
        }
        if action == DENY {
            return decided(Outcome::Denied);
        }
        // Passed: after the Admin tier comes the next one, which begins with a page of its own. After Baseline comes nothing.
        if admin >> page & 1 == 0 {
            return decided(Outcome::Allow);
        }
        left &= !admin;
        *passed = u32::from(page * PAGE_BITS + bit);
    }
    Decision::without_rule(if open | own != 0 { Outcome::Allow } else { Outcome::Isolated })
}

/// So many pages from the first on, a bit each.
#[inline(always)]
const fn first_pages(count: u16) -> u32 {
    ((1 << (count & 15)) - 1) & ALL_PAGES
}

/// All pages if the lowest bit is set, else none.
#[inline(always)]
const fn all_pages_if(bit: u32) -> u32 {
    0_u32.wrapping_sub(bit & 1) & ALL_PAGES
}

/// A bit for each page.
const ALL_PAGES: u32 = (1 << MAX_PAGES) - 1;

/// What a class and a port meet of a page of a set: the rules of both. `ranges`: the set has rows for blocks of ports. Each page
/// costs as much as everything else together, so a program has this as a function of its own, which the verifier checks once.
///
/// # Errors
///
/// A row is missing, or belonged to somebody else.
#[inline(always)]
pub fn page<T: Tables>(tables: &T, key: PortKey, class: u32, ranges: bool) -> Result<Common, Outcome> {
    let peers = peer_row(tables, &PeerKey { set: key.set, class, page: u32::from(key.page) })?;
    let ports = port_row(tables, key, ranges)?;
    Ok(first_common(&peers, &ports))
}

/// The rules that a class meets: its row, or that of class 0.
#[inline(always)]
fn peer_row<T: Tables>(tables: &T, key: &PeerKey) -> Result<Row, Outcome> {
    if let Some(row) = tables.policy_peers(key) {
        return own(row, key.tag());
    }
    let key = PeerKey { class: 0, ..*key };
    tables.policy_peers(&key).map_or(Err(Outcome::Missing), |row| own(row, key.tag()))
}

/// The rules that a port meets: its row, or its block's, or its protocol's.
#[inline(always)]
fn port_row<T: Tables>(tables: &T, key: PortKey, ranges: bool) -> Result<Row, Outcome> {
    if let Some(row) = tables.policy_ports(&key) {
        return own(row, key.tag());
    }
    let block = RangeKey::lookup(&key);
    if ranges && let Some(row) = tables.policy_range(&block) {
        return own(row, block.tag());
    }
    let key = PortKey { port: ANY_PORT, ..key };
    tables.policy_ports(&key).map_or(Err(Outcome::Missing), |row| own(row, key.tag()))
}

#[inline(always)]
fn own(row: Row, tag: u32) -> Result<Row, Outcome> {
    if row.is_of(tag) { Ok(row) } else { Err(Outcome::Race) }
}

/// The lowest bit that two rows have in common.
#[derive(Debug, Clone, Copy)]
pub struct Common {
    /// The bit, or [`PAGE_BITS`].
    bit: u16,
    /// What it does if it is one of a pair: `ACCEPT`, `DENY`, or else it passes.
    action: u64,
}

/// The bit, then what it does; or, above both, the outcome.
impl Register for Result<Common, Outcome> {
    #[inline(always)]
    fn pack(self) -> u64 {
        match self {
            Ok(Common { bit, action }) => action << 16 | u64::from(bit),
            Err(outcome) => (outcome as u64 + 1) << 32,
        }
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        const RACE: u64 = Outcome::Race as u64 + 1;
        match word >> 32 {
            0 => Ok(Common { bit: word as u16, action: word >> 16 }),
            RACE => Err(Outcome::Race),
            _ => Err(Outcome::Missing),
        }
    }
}

/// [`Common::action`]: the first bit of a pair alone.
const ACCEPT: u64 = 0;
/// The second.
const DENY: u64 = 1;
/// Both.
#[cfg(test)]
const PASS: u64 = 2;

/// The lowest bit that both have, and what the pair that it is of says.
#[inline(always)]
fn first_common(a: &Row, b: &Row) -> Common {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.bits, b.bits);
    let (mut word, mut base) = (a3 & b3, 192);
    if a2 & b2 != 0 {
        (word, base) = (a2 & b2, 128);
    }
    if a1 & b1 != 0 {
        (word, base) = (a1 & b1, 64);
    }
    if a0 & b0 != 0 {
        (word, base) = (a0 & b0, 0);
    }
    if word == 0 {
        return Common { bit: PAGE_BITS, action: ACCEPT };
    }
    let at = lowest_bit(word) as u16;
    // The second of the pair: 0 if it is not there, 2 if both are, 1 if it is the lowest itself.
    let both = (word >> (at | 1)) & 1;
    Common { bit: base + at, action: (both << 1) - u64::from(at & 1) }
}

#[cfg(test)]
mod tests;
