//! The response to a question, in the packet that asked it.
//!
//! The question stays where it is, in the client's spelling; names in records are pointers into it. Only what changes is added to
//! the checksum: nothing shows whether the kernel has computed that yet, and the helper that changes it does so in the way that fits.

use zerocopy::IntoBytes;

use super::{DnsAnswer, DnsZone, HEADER, OPT, TYPE_AND_CLASS, ZoneFlags, flags};
use crate::kernel::Kernel;
use crate::packet::{ETH_LEN, Ipv4, Ipv6, Macs, Ports, UDP, csum};
use crate::scratch::Walk;

/// The code of a name that does not exist.
const NO_NAME: u16 = 3;

/// The least that a client has to take, also if it says less (RFC 6891 section 6.2.3).
const MIN_UDP: u32 = 512;

/// The fixed fields of an SOA after the serial, in seconds: refresh, retry, expire.
const SOA_TIMES: [u32; 3] = [7200, 1800, 86_400];

/// Words of the records that are written, as they stand on the wire.
type A = [u16; 8];
type Aaaa = [u16; 14];
type Soa = [u16; 27];

const TYPE_A: u16 = 1;
const TYPE_SOA: u16 = 6;
const TYPE_AAAA: u16 = 28;
const IN: u16 = 1_u16.to_be();

/// Whether a packet is the response now. `None`: it could not be made longer, and is as it was.
#[inline(always)]
pub fn respond<K: Kernel>(k: &K, w: &mut Walk, zone: &DnsZone) -> Option<bool> {
    let q = &w.question;
    let answer = k.reread(&q.answer);
    let negative = answer >= DnsAnswer::NoA as u32;
    if negative {
        let soa = soa(zone, k.reread(&q.front));
        return write(k, w, zone, &soa, sum(&soa));
    }
    if answer == DnsAnswer::Aaaa as u32 {
        let mut record: Aaaa = [0; 14];
        let [a, b, c, d] =
            [q.facts.v6.hi as u32, (q.facts.v6.hi >> 32) as u32, q.facts.v6.lo as u32, (q.facts.v6.lo >> 32) as u32];
        begin(&mut record, 0, TYPE_AAAA, zone.ttl, 16);
        for (at, word) in [(6, a), (8, b), (10, c), (12, d)] {
            put(&mut record, at, word);
        }
        return write(k, w, zone, &record, sum(&record));
    }
    let mut record: A = [0; 8];
    begin(&mut record, 0, TYPE_A, zone.ttl, 4);
    put(&mut record, 6, q.facts.v4.bits());
    write(k, w, zone, &record, sum(&record))
}

/// A pointer to the question's name, from an offset on.
#[inline(always)]
const fn pointer(offset: u32) -> u16 {
    0xc000 | (HEADER + offset) as u16
}

/// The first fields of a record: owner, type, class, TTL and the length of its data.
#[inline(always)]
fn begin<const N: usize>(record: &mut [u16; N], owner: u32, kind: u16, ttl: u32, length: u16) {
    let ttl = ttl.to_be();
    let fields = [pointer(owner).to_be(), kind.to_be(), IN, ttl as u16, (ttl >> 16) as u16, length.to_be()];
    for (place, field) in record.iter_mut().zip(fields) {
        *place = field;
    }
}

/// Puts 32 bits, as they stand on the wire, into a record.
#[inline(always)]
fn put<const N: usize>(record: &mut [u16; N], at: usize, word: u32) {
    if let Some([first, second]) = record.get_mut(at..at + 2) {
        (*first, *second) = (word as u16, (word >> 16) as u16);
    }
}

/// The SOA of the zone, whose name begins at an offset of the question's: `ns.dns` and `hostmaster` are below it.
#[inline(always)]
fn soa(zone: &DnsZone, front: u32) -> Soa {
    let [high, low] = pointer(front).to_be_bytes();
    let mut record: Soa = [0; 27];
    begin(&mut record, front, TYPE_SOA, zone.soa_ttl, 42);
    let names =
        [*b"\x02n", *b"s\x03", *b"dn", [b's', high], [low, 10], *b"ho", *b"st", *b"ma", *b"st", *b"er", [high, low]];
    for (place, bytes) in record.iter_mut().skip(6).zip(names) {
        *place = u16::from_ne_bytes(bytes);
    }
    let [refresh, retry, expire] = SOA_TIMES;
    for (at, number) in [(17, zone.serial), (19, refresh), (21, retry), (23, expire), (25, zone.ttl)] {
        put(&mut record, at, number.to_be());
    }
    record
}

/// The sum of a record's words.
#[inline(always)]
fn sum(words: &[u16]) -> u64 {
    words.iter().map(|word| u64::from(*word)).sum()
}

/// A sum of words, when they begin at an odd offset: then their bytes are the other way round.
#[inline(always)]
const fn placed(sum: u64, odd: bool) -> u32 {
    let sum = csum::fold16(sum);
    if odd { sum.swap_bytes() as u32 } else { sum as u32 }
}

/// Turns the packet into the response with one record.
#[inline(always)]
fn write<K: Kernel, const N: usize>(k: &K, w: &Walk, zone: &DnsZone, record: &[u16; N], sum: u64) -> Option<bool>
where
    [u16; N]: IntoBytes + zerocopy::Immutable,
{
    let (q, p) = (&w.question, &w.packet);
    let l4 = k.reread(&p.l4);
    let (name, answer, additional) = (k.reread(&q.name), k.reread(&q.answer), k.reread(&q.additional));
    let behind = HEADER + name + TYPE_AND_CLASS;
    let length = 8 + behind + 2 * N as u32 + additional * OPT;
    let before = 8 + behind + additional * OPT;
    let macs = k.load::<Macs>(0)?;
    if !k.cut(l4 + length) {
        return None;
    }
    k.reach(l4 + length);
    let head = l4 + 8;
    // The flags of the header, and how many answers and authorities there are.
    let negative = answer >= DnsAnswer::NoA as u32;
    let code = if answer >= DnsAnswer::NoNameForA as u32 { NO_NAME } else { 0 };
    let recursion = if zone.flags & ZoneFlags::RECURSION != 0 { flags::RECURSION_AVAILABLE } else { 0 };
    let asked = k.reread(&q.flags) as u16;
    let kept = asked & (flags::RECURSION_DESIRED | flags::CHECKING_DISABLED);
    let said = flags::RESPONSE | flags::AUTHORITATIVE | recursion | kept | code;
    let counts: [u16; 2] = if negative { [0, 1_u16.to_be()] } else { [1_u16.to_be(), 0] };
    let size = if q.size < MIN_UDP { MIN_UDP as u16 } else { q.size as u16 };

    let odd = name & 1 != 0;
    let mut diff = csum::add(csum::word_diff(asked.to_be(), said.to_be()), u32::from(1_u16.to_be()));
    diff = csum::add(diff, placed(sum, odd));
    let longer = csum::word_diff((before as u16).to_be(), (length as u16).to_be());
    diff = csum::add(diff, longer);
    let mut stored = k.store(head + 2, &said.to_be()) && k.store(head + 6, &counts) && k.store(head + behind, record);
    if additional != 0 {
        let [high, low] = size.to_be_bytes();
        let opt = [0, 0, 41, high, low, 0, 0, (q.opt_flags >> 8) as u8, 0, 0, 0];
        stored = stored && k.store(head + behind + 2 * N as u32, &opt);
        // Three bytes behind the beginning of the record, whose length is even.
        let changed = csum::word_diff((q.size as u16).to_be(), size.to_be());
        diff = csum::add(diff, placed(u64::from(changed), !odd));
    }
    let t = &p.tuple;
    stored = stored
        && k.adjust_l4_csum(l4 + 6, diff, false, true)
        && k.adjust_l4_csum(l4 + 6, longer, true, true)
        && k.store(l4, &Ports { src: t.dport, dst: t.sport })
        && k.store(l4 + 4, &(length as u16).to_be())
        && k.store(0, &Macs { dst: macs.src, src: macs.dst });
    let ip = if p.v6 == 1 {
        k.store(ETH_LEN, &Ipv6::made(length as u16, UDP, t.dst, t.src))
    } else {
        k.store(ETH_LEN, &Ipv4::made((20 + length) as u16, UDP, t.dst.v4(), t.src.v4()))
    };
    Some(stored && ip)
}
