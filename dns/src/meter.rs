//! Counts of queries and responses, with the dimensions that CoreDNS' metrics have.
//!
//! Each thread that serves UDP has a [`Shard`] of its own and is its only writer, so counting is a load and a store for
//! each number: no lock, no allocation, no cache line that another core writes. Who asks for metrics reads all shards.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::counter::Counter;
use crate::manner::Transport;
use crate::wire::{HEADER, RecordType, question_type};

/// Names of types that are told apart (plugin/metrics/vars/monitor.go); the last is for all others.
pub const TYPES: [&str; 20] = [
    "A", "AAAA", "PTR", "SRV", "TXT", "SOA", "NS", "CNAME", "MX", "HTTPS", "SVCB", "DS", "DNSKEY", "RRSIG", "NSEC",
    "NSEC3", "IXFR", "AXFR", "ANY", "other",
];
/// Names of response codes; the last is for all others.
pub const CODES: [&str; 13] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
    "NOTZONE", "BADVERS", "other",
];
/// BADVERS, which has no place among the small numbers.
const BADVERS: u16 = 16;
/// Families, as CoreDNS numbers them: IPv4 and IPv6.
pub const FAMILIES: [&str; 2] = ["1", "2"];
/// Upper bounds of sizes, in bytes.
pub const SIZES: [u64; 14] = [0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000];
/// Upper bounds of times, in nanoseconds: from 0.25 ms to 8 s.
pub const TIMES: [u64; 16] = doubling(250_000);
/// Upper bounds of the time until a change is in the zone, in nanoseconds: from 1 ms to 9 minutes.
pub const PROGRAMMING: [u64; 20] = doubling(1_000_000);

const fn doubling<const N: usize>(start: u64) -> [u64; N] {
    let (mut bounds, mut at) = ([0; N], 0);
    while at < N {
        bounds[at] = start << at;
        at += 1;
    }
    bounds
}

/// Who made a response, by the names of CoreDNS' plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// The zone.
    Kubernetes,
    /// An upstream server, or that there was none.
    Forward,
    /// Nobody: it says what is wrong with the query.
    Nobody,
    /// What was kept of an upstream server's answer.
    Cache,
}

/// Names of [`Maker`]s.
pub const MAKERS: [&str; 4] = ["kubernetes", "forward", "", "cache"];

/// How often something was within each of some bounds.
pub struct Histogram<const N: usize> {
    bounds: &'static [u64; N],
    counts: [Counter; N],
    above: Counter,
    sum: Counter,
}

impl<const N: usize> Histogram<N> {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: &'static [u64; N]) -> Self {
        let counts = std::array::from_fn(|_| Counter::default());
        Self { bounds, counts, above: Counter::default(), sum: Counter::default() }
    }

    /// Counts a value.
    pub fn observe(&self, value: u64) {
        self.cell(value).add(1);
        self.sum.add(value);
    }

    fn cell(&self, value: u64) -> &Counter {
        let place = self.bounds.iter().position(|bound| value <= *bound);
        place.and_then(|at| self.counts.get(at)).unwrap_or(&self.above)
    }

    /// Adds what was counted to this.
    pub fn add_to(&self, sums: &mut Sums) {
        sums.counts.resize(N, 0);
        for (sum, count) in sums.counts.iter_mut().zip(&self.counts) {
            *sum += count.get();
        }
        sums.above += self.above.get();
        sums.sum += self.sum.get();
    }
}

impl<const N: usize> fmt::Debug for Histogram<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.counts.iter().map(Counter::get).sum::<u64>() + self.above.get();
        write!(f, "{count} of {} together", self.sum)
    }
}

/// Counts of several histograms together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// By bound, each without those below it.
    pub counts: Vec<u64>,
    /// Above every bound.
    pub above: u64,
    /// Of all values.
    pub sum: u64,
}

impl Sums {
    /// Adds another of the same bounds.
    pub fn add(&mut self, other: &Self) {
        self.counts.resize(other.counts.len(), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.above += other.above;
        self.sum += other.sum;
    }
}

/// A query as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    v6: bool,
    record_type: Option<RecordType>,
    size: usize,
}

impl Asked {
    /// What a message asks, from a client with an address of IPv6 (that is not an IPv4 one in disguise) or of IPv4.
    #[must_use]
    pub fn new(message: &[u8], v6: bool) -> Self {
        Self { v6, record_type: question_type(message), size: message.len() }
    }
}

/// A response as it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// The response code, as the header and an OPT record say it together.
    pub code: u16,
    /// The client wanted signatures.
    pub dnssec_ok: bool,
    /// Its length in bytes.
    pub size: usize,
    /// Who made it.
    pub maker: Maker,
}

impl Answered {
    /// What bytes say to a plain query: the code is in the header, and what the client wants in an OPT record
    /// at the end.
    #[must_use]
    pub fn plainly(response: &[u8], maker: Maker) -> Self {
        let code = response.get(3).map_or(0, |flags| u16::from(flags & 0xf));
        let has_opt = response.get(HEADER - 1) == Some(&1);
        let flags = response.len().checked_sub(4).and_then(|at| response.get(at));
        let dnssec_ok = has_opt && flags.is_some_and(|flags| flags & 0x80 != 0);
        Self { code, dnssec_ok, size: response.len(), maker }
    }
}

/// What was counted in one place.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard {
    /// The address that the server listens on.
    pub server: SocketAddr,
    /// What queries came over.
    pub transport: Transport,
    /// There is one writer.
    alone: bool,
    requests: [[Counter; TYPES.len()]; FAMILIES.len()],
    dnssec_ok: Counter,
    responses: [[Counter; CODES.len()]; MAKERS.len()],
    request_size: Histogram<{ SIZES.len() }>,
    response_size: Histogram<{ SIZES.len() }>,
    duration: Histogram<{ TIMES.len() }>,
}

fn counters<const N: usize, const M: usize>() -> [[Counter; N]; M] {
    std::array::from_fn(|_| std::array::from_fn(|_| Counter::default()))
}

impl Shard {
    fn new(server: SocketAddr, transport: Transport, alone: bool) -> Self {
        Self {
            server,
            transport,
            alone,
            requests: counters(),
            dnssec_ok: Counter::default(),
            responses: counters(),
            request_size: Histogram::new(&SIZES),
            response_size: Histogram::new(&SIZES),
            duration: Histogram::new(&TIMES),
        }
    }

    fn add(&self, counter: Option<&Counter>, count: u64) {
        match counter {
            Some(counter) if self.alone => counter.add_alone(count),
            Some(counter) => counter.add(count),
            None => {}
        }
    }

    fn observe<const N: usize>(&self, histogram: &Histogram<N>, value: u64, count: u64) {
        self.add(Some(histogram.cell(value)), count);
        self.add(Some(&histogram.sum), value * count);
    }

    /// Counts a query and its response. The time is told apart: see [`Self::took`].
    pub fn report(&self, asked: Asked, answered: Answered) {
        let [v4, v6] = &self.requests;
        let requests = if asked.v6 { v6 } else { v4 };
        self.add(requests.get(type_index(asked.record_type)), 1);
        if answered.dnssec_ok {
            self.add(Some(&self.dnssec_ok), 1);
        }
        let codes = self.responses.get(answered.maker as usize);
        self.add(codes.and_then(|codes| codes.get(code_index(answered.code))), 1);
        self.observe(&self.request_size, asked.size as u64, 1);
        self.observe(&self.response_size, answered.size as u64, 1);
    }

    /// So many responses took so long.
    pub fn took(&self, time: Duration, count: u64) {
        self.observe(&self.duration, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 1024), count);
    }
}

fn type_index(record_type: Option<RecordType>) -> usize {
    let other = TYPES.len() - 1;
    match record_type.map_or(0, |RecordType(number)| number) {
        1 => 0,
        28 => 1,
        12 => 2,
        33 => 3,
        16 => 4,
        6 => 5,
        2 => 6,
        5 => 7,
        15 => 8,
        65 => 9,
        64 => 10,
        43 => 11,
        48 => 12,
        46 => 13,
        47 => 14,
        50 => 15,
        251 => 16,
        252 => 17,
        255 => 18,
        _ => other,
    }
}

/// The place of a response code in [`CODES`].
#[must_use]
pub fn code_index(code: u16) -> usize {
    let badvers = CODES.len() - 2;
    match usize::from(code) {
        small if small < badvers => small,
        _ if code == BADVERS => badvers,
        _ => badvers + 1,
    }
}

/// All shards.
#[derive(Default)]
pub struct Meters(Mutex<Vec<Arc<Shard>>>);

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queries: u64 = self.read().iter().flat_map(|reading| reading.requests.iter().flatten()).sum();
        write!(f, "{queries} queries")
    }
}

impl Meters {
    /// A shard for one writer.
    pub fn alone(&self, server: SocketAddr, transport: Transport) -> Arc<Shard> {
        self.add(Shard::new(server, transport, true))
    }

    /// A shard for several writers.
    pub fn shared(&self, server: SocketAddr, transport: Transport) -> Arc<Shard> {
        self.add(Shard::new(server, transport, false))
    }

    fn add(&self, shard: Shard) -> Arc<Shard> {
        let shard = Arc::new(shard);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&shard));
        shard
    }

    /// What was counted, by address and transport.
    #[must_use]
    pub fn read(&self) -> Vec<Reading> {
        let mut readings: Vec<Reading> = Vec::new();
        for shard in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let same = |reading: &&mut Reading| reading.server == shard.server && reading.transport == shard.transport;
            let at = match readings.iter_mut().find(same) {
                Some(reading) => reading,
                None => {
                    readings.push(Reading::new(shard.server, shard.transport));
                    let Some(last) = readings.last_mut() else { continue };
                    last
                }
            };
            at.add(shard);
        }
        readings
    }
}

/// What was counted for one address and transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The address that the server listens on.
    pub server: SocketAddr,
    /// What queries came over.
    pub transport: Transport,
    /// Queries by family ([`FAMILIES`]) and type ([`TYPES`]).
    pub requests: [[u64; TYPES.len()]; FAMILIES.len()],
    /// Queries whose client wanted signatures.
    pub dnssec_ok: u64,
    /// Responses by maker ([`MAKERS`]) and code ([`CODES`]).
    pub responses: [[u64; CODES.len()]; MAKERS.len()],
    /// Bytes of queries, by [`SIZES`].
    pub request_size: Sums,
    /// Bytes of responses, by [`SIZES`].
    pub response_size: Sums,
    /// Nanoseconds until the response, by [`TIMES`].
    pub duration: Sums,
}

impl Reading {
    fn new(server: SocketAddr, transport: Transport) -> Self {
        Self {
            server,
            transport,
            requests: Default::default(),
            dnssec_ok: 0,
            responses: Default::default(),
            request_size: Sums::default(),
            response_size: Sums::default(),
            duration: Sums::default(),
        }
    }

    fn add(&mut self, shard: &Shard) {
        let add = |sums: &mut [u64], counters: &[Counter]| {
            sums.iter_mut().zip(counters).for_each(|(sum, counter)| *sum += counter.get());
        };
        self.requests.iter_mut().zip(&shard.requests).for_each(|(sums, counters)| add(sums, counters));
        self.responses.iter_mut().zip(&shard.responses).for_each(|(sums, counters)| add(sums, counters));
        self.dnssec_ok += shard.dnssec_ok.get();
        shard.request_size.add_to(&mut self.request_size);
        shard.response_size.add_to(&mut self.response_size);
        shard.duration.add_to(&mut self.duration);
    }
}

#[cfg(test)]
mod tests;
