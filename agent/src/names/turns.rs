//! Questions that wait: each client has its turn.
//!
//! What is asked costs by its addresses. So much is taken at once, of each client no more than its part, and the
//! next time begins with the client behind the last one. So who asks very much waits, and nobody waits for it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;

/// What is taken at once.
const TURN: usize = 256;

/// What is taken of one client, but one question in any case: others wait for it no longer than the DNS server waits.
const PART: usize = 16;

/// Questions of one client that wait.
const MOST: usize = 256;

/// Questions that wait in all.
const MOST_IN_ALL: usize = 8192;

/// Addresses that cost as much as a question itself.
const ADDRESSES: usize = 16;

/// Questions by the client that they are about.
#[derive(Debug)]
pub(super) struct Turns<T> {
    waiting: BTreeMap<IpAddr, VecDeque<(usize, T)>>,
    count: usize,
    last: Option<IpAddr>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), count: 0, last: None }
    }
}

impl<T> Turns<T> {
    /// A question waits for its turn. Too many are given back.
    ///
    /// # Errors
    /// Too many wait.
    pub(super) fn push(&mut self, client: IpAddr, addresses: usize, question: T) -> Result<(), T> {
        let waiting = self.waiting.get(&client).map_or(0, VecDeque::len);
        if waiting >= MOST || self.count >= MOST_IN_ALL {
            return Err(question);
        }
        self.waiting.entry(client).or_default().push_back((1 + addresses / ADDRESSES, question));
        self.count += 1;
        Ok(())
    }

    /// Whether none waits.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Those whose turn it is.
    pub(super) fn take(&mut self) -> Vec<T> {
        let (mut taken, mut spent) = (Vec::new(), 0);
        let behind = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let clients: Vec<IpAddr> = self.waiting.range((behind, Bound::Unbounded)).map(|(client, _)| *client).collect();
        let before = self.waiting.keys().copied().take_while(|client| self.last.is_some_and(|last| *client <= last));
        for client in clients.into_iter().chain(before.collect::<Vec<_>>()) {
            let Some(queue) = self.waiting.get_mut(&client) else { continue };
            let mut part = 0;
            while queue.front().is_some_and(|(cost, _)| part == 0 || part + cost <= PART)
                && let Some((cost, question)) = queue.pop_front()
            {
                (part, self.count) = (part + cost, self.count - 1);
                taken.push(question);
            }
            if queue.is_empty() {
                self.waiting.remove(&client);
            }
            self.last = Some(client);
            spent += part;
            if spent >= TURN {
                break;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(n: u8) -> IpAddr {
        [10, 244, 1, n].into()
    }

    #[test]
    fn p85_who_asks_very_much_waits_and_nobody_waits_for_it() {
        let mut turns = Turns::default();
        let pushed = (0..1000).filter(|n| turns.push(client(1), 1024, (1, *n)).is_ok()).count();
        assert_eq!(pushed, MOST, "the rest is refused at once");
        for n in 2..100 {
            turns.push(client(n), 2, (n, 0)).unwrap();
        }
        let first = turns.take();
        assert_eq!(first[..2], [(1, 0), (2, 0)], "one of who asks for much, then the others");
        assert_eq!(first.len(), 99);
        assert_eq!(turns.take(), [(1, 1)]);
        // Where more ask for much than one turn has room for, each has its turn in the next ones.
        for n in 2..100 {
            (0..3).for_each(|m| turns.push(client(n), 1024, (n, m)).unwrap());
        }
        let mut seen: Vec<u8> = (0..26).flat_map(|_| turns.take()).map(|(n, _)| n).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 99);
    }

    proptest! {
        #[test]
        fn everything_comes_once_and_in_the_order_of_its_client(
            steps in prop::collection::vec((0..5_u8, 0..1024_usize, any::<bool>()), 0..400),
        ) {
            let (mut turns, mut pushed, mut taken) = (Turns::default(), Vec::new(), Vec::new());
            for (n, (who, addresses, takes)) in steps.into_iter().enumerate() {
                if turns.push(client(who), addresses, (who, n)).is_ok() {
                    pushed.push((who, n));
                }
                if takes {
                    taken.extend(turns.take());
                }
            }
            while !turns.is_empty() {
                let more = turns.take();
                prop_assert!(!more.is_empty());
                taken.extend(more);
            }
            for who in 0..5 {
                let of = |all: &[(u8, usize)]| all.iter().filter(|(w, _)| *w == who).copied().collect::<Vec<_>>();
                prop_assert_eq!(of(&taken), of(&pushed));
            }
        }
    }
}
