//! What a query asks, and what there is to say.
//!
//! Names are read and compared in words of eight bytes, with no branch that depends on a byte: the verifier would follow both
//! sides of each. What is read of a message lies in scratch memory, since an offset into the stack has to be constant.

use super::{
    DnsAnswer, DnsFlags, DnsName, DnsZone, HEADER, LONGEST_NAME, LONGEST_ZONE, OPT, TYPE_AND_CLASS, ZoneFlags, flags,
};
use crate::kernel::Kernel;
use crate::scratch::{Question, Walk};

/// Labels of a name, besides its root: what search lists make of a name of some labels.
const LABELS: usize = 10;

/// Types and the class of what is answered, as numbers.
const A: u32 = 1;
const AAAA: u32 = 28;
const IN: u32 = 1;

/// The words of what is read.
type Words = [u64; Question::WORDS];

/// Reads the query that begins at an offset and has so many bytes, and finds what is to be said; all of it is noted in
/// `w.question`. False if it is not for here to say.
#[inline(always)]
pub fn find<K: Kernel>(k: &K, w: &mut Walk, offset: u32, length: u32, zone: &DnsZone) -> bool {
    const ONE: u16 = 1_u16.to_be();
    let q = &mut w.question;
    let Some([_, head, questions, answers, authorities, additional]) = k.load::<[u16; 6]>(offset) else { return false };
    q.flags = u32::from(u16::from_be(head));
    let unusual = u32::from(questions ^ ONE) | u32::from(answers) | u32::from(authorities);
    let refused = q.flags & u32::from(flags::RESPONSE | flags::OPCODE | flags::TRUNCATED);
    // None or one.
    let additional = u32::from(u16::from_be(additional));
    if unusual | refused | (additional & !1) != 0 || length <= HEADER || length - HEADER > Question::BYTES {
        return false;
    }
    q.additional = additional;
    let body = length - HEADER;
    if !k.read_into(offset + HEADER, body, &mut q.words) {
        return false;
    }
    q.name = name_len(k, &q.words);
    let opt = q.additional * OPT;
    if q.name == 0 || q.name > LONGEST_NAME || q.name + TYPE_AND_CLASS + opt != body {
        return false;
    }
    let (kind, class) = (pair(k, &q.words, q.name), pair(k, &q.words, q.name + 2));
    if class != IN || (kind != A && kind != AAAA) || !read_opt(k, q) {
        return false;
    }
    make_key(k, q);
    match said(k, q, kind == AAAA, zone) {
        Some(answer) => {
            q.answer = answer as u32;
            true
        }
        None => false,
    }
}

/// A byte of what was read.
#[inline(always)]
fn byte<K: Kernel>(k: &K, words: &Words, at: u32) -> u32 {
    let at = k.plain(u64::from(at));
    let word = words.get((at >> 3 & (Question::WORDS - 1) as u64) as usize).copied().unwrap_or(0);
    (word >> ((at & 7) * 8)) as u32 & 0xff
}

/// Two bytes, as a number.
#[inline(always)]
fn pair<K: Kernel>(k: &K, words: &Words, at: u32) -> u32 {
    byte(k, words, at) << 8 | byte(k, words, at + 1)
}

/// All ones if a number is less than another, else zero. Both are small.
#[inline(always)]
fn less<K: Kernel>(k: &K, a: u32, b: u32) -> u32 {
    0_u32.wrapping_sub((k.plain(u64::from(a).wrapping_sub(u64::from(b))) >> 63) as u32)
}

/// The length of the name, with its root; 0 if it has too many labels, or one that is none.
#[inline(always)]
fn name_len<K: Kernel>(k: &K, words: &Words) -> u32 {
    let (mut at, mut all, mut more) = (0_u32, 0, u32::MAX);
    for _ in 0..=LABELS {
        let length = byte(k, words, at);
        all |= length;
        more &= less(k, 0, length);
        at += (length + 1) & more;
    }
    // Labels of more than 63 bytes are none, or pointers.
    if more != 0 || all & 0xc0 != 0 { 0 } else { at + 1 }
}

/// Reads an OPT record behind the question, if there is one. False if it is not the plainest.
#[inline(always)]
fn read_opt<K: Kernel>(k: &K, q: &mut Question) -> bool {
    if q.additional == 0 {
        return true;
    }
    let at = q.name + TYPE_AND_CLASS;
    let word = |offset| pair(k, &q.words, at + offset);
    // Root and type; size; code and version; flags and the length of options.
    let (root, size, code, bits, options) = (byte(k, &q.words, at) << 16 | word(1), word(3), word(5), word(7), word(9));
    q.size = size;
    q.opt_flags = bits & 0x8000;
    (root ^ 41) | code | (bits & 0x7fff) | options == 0
}

/// Makes of what was read the name's key: in lower case, with zeros behind it.
#[inline(always)]
fn make_key<K: Kernel>(k: &K, q: &mut Question) {
    let (whole, rest) = (q.name >> 3, q.name & 7);
    let partial = !(u64::MAX << (k.plain(u64::from(rest)) * 8));
    for (index, word) in q.words.iter_mut().enumerate() {
        let (before, behind) = (less(k, index as u32, whole), less(k, whole, index as u32));
        // Of the words before it all, of those behind it nothing.
        let mask =
            (u64::from(before) | u64::from(before) << 32) | (partial & !(u64::from(behind) | u64::from(behind) << 32));
        *word = lower(*word) & mask;
    }
}

/// Letters of ASCII in lower case.
#[inline(always)]
const fn lower(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low = word & (0x7f * EACH);
    let (from_a, above_z) = (low + (0x80 - b'A' as u64) * EACH, low + (0x7f - b'Z' as u64) * EACH);
    let letters = (from_a & !above_z) & !word & (0x80 * EACH);
    word | letters >> 2
}

/// What is to be said.
#[inline(always)]
fn said<K: Kernel>(k: &K, q: &mut Question, v6: bool, zone: &DnsZone) -> Option<DnsAnswer> {
    let length = zone.length;
    if length == 0 || length > LONGEST_ZONE || length > q.name {
        return None;
    }
    q.front = q.name - length;
    let Some(name) = q.words.first_chunk::<{ LONGEST_NAME as usize / 8 }>() else { return None };
    let name: &DnsName = zerocopy::transmute_ref!(name);
    let Some(facts) = k.dns_name(name) else {
        let none = zone.flags & ZoneFlags::COMPLETE != 0 && is_zones_to_deny(k, q, zone);
        return none.then_some(if v6 { DnsAnswer::NoNameForAaaa } else { DnsAnswer::NoNameForA });
    };
    if !facts.is_of(name.tag()) {
        return None;
    }
    q.facts = facts;
    match (v6, facts.flags) {
        (false, flags) if flags & DnsFlags::A != 0 => Some(DnsAnswer::A),
        (false, flags) if flags & DnsFlags::NO_A != 0 => Some(DnsAnswer::NoA),
        (true, flags) if flags & DnsFlags::AAAA != 0 => Some(DnsAnswer::Aaaa),
        (true, flags) if flags & DnsFlags::NO_AAAA != 0 => Some(DnsAnswer::NoAaaa),
        _ => None,
    }
}

/// Whether a name that is not known is below the zone, and nobody else knows it: names of pods are made of what is asked, and
/// in a negative answer about a name below `dns` or `hostmaster` the server may write the SOA's own names shorter.
#[inline(always)]
fn is_zones_to_deny<K: Kernel>(k: &K, q: &Question, zone: &DnsZone) -> bool {
    const POD: u32 = u32::from_be_bytes(*b"\x03pod");
    const DNS: u32 = u32::from_be_bytes(*b"\x03dns");
    /// Whatever begins like this.
    const HOSTMASTER: u32 = u32::from_be_bytes(*b"\x0ahos");
    let (mut at, mut last) = (0_u32, 0_u32);
    for _ in 0..LABELS {
        let before = less(k, at, q.front);
        last = (last & !before) | (at & before);
        at += (byte(k, &q.words, at) + 1) & before;
    }
    if at != q.front || q.front == 0 {
        return false;
    }
    let label = pair(k, &q.words, last) << 16 | pair(k, &q.words, last + 2);
    if label == POD || label == DNS || label == HOSTMASTER {
        return false;
    }
    let (first, shift) = (k.plain(u64::from(q.front >> 3)), k.plain(u64::from(q.front & 7)) * 8);
    let mut differ = 0;
    for (index, own) in zone.origin.iter().enumerate() {
        let word = |at: u64| q.words.get((at & (Question::WORDS - 1) as u64) as usize).copied().unwrap_or(0);
        let at = first + index as u64;
        // Shifted by 64 it would be the word itself.
        differ |= (word(at) >> shift | word(at + 1) << 1 << (63 - shift)) ^ own;
    }
    differ == 0
}

#[cfg(test)]
mod tests {
    use super::lower;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn words_are_in_lower_case_as_their_bytes_are(bytes in any::<[u8; 8]>()) {
            prop_assert_eq!(lower(u64::from_le_bytes(bytes)).to_le_bytes(), bytes.map(|byte| byte.to_ascii_lowercase()));
        }
    }
}
