//! How much of the agent's time questions about each client take.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What questions about one client may cost in a second.
const MOST: usize = 1000;

/// What they may cost about all clients. Beyond that a client has its part of as much again, among those that asked in this second or
/// the one before.
const MOST_IN_ALL: usize = 4000;

/// Addresses that cost as much as the question itself.
const ADDRESSES: usize = 16;

/// What was spent in a second.
#[derive(Debug, Default)]
pub(super) struct Budget {
    since: Option<Instant>,
    all: usize,
    clients: HashMap<IpAddr, usize>,
    /// How many clients the second before had.
    before: usize,
}

impl Budget {
    /// Whether a question about so many addresses may be asked now. It is counted then.
    pub(super) fn spend(&mut self, client: IpAddr, addresses: usize, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            *self = Self { since: Some(now), before: self.clients.len(), ..Self::default() };
        }
        let cost = 1 + addresses / ADDRESSES;
        let spent = self.clients.entry(client).or_default();
        let (after, clients) = (*spent + cost, self.clients.len().max(self.before));
        let may = after <= MOST && (self.all + cost <= MOST_IN_ALL || after <= MOST_IN_ALL / clients);
        if may {
            self.all += cost;
            self.clients.insert(client, after);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p85_a_client_that_asks_for_much_spends_its_own_part() {
        let client = |n: u8| IpAddr::from([10, 244, 1, n]);
        let asked = |budget: &mut Budget, n, addresses, now| {
            (0..2000).filter(|_| budget.spend(client(n), addresses, now)).count()
        };
        let (mut budget, start) = (Budget::default(), Instant::now());
        assert_eq!(asked(&mut budget, 1, 0, start), MOST);
        assert_eq!(asked(&mut budget, 2, 1024, start), MOST / 65, "what counts are addresses");
        for second in 1..4 {
            let now = start + Duration::from_secs(second);
            for n in 1..20 {
                asked(&mut budget, n, 160, now);
            }
            let of_last = asked(&mut budget, 20, 4, now);
            assert!((150..=MOST_IN_ALL / 20).contains(&of_last), "{of_last}: its part, after all others");
            assert!(second == 1 || budget.all <= 2 * MOST_IN_ALL, "{}", budget.all);
        }
    }
}
