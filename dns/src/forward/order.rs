//! In which order servers are asked.

use std::fmt;
use std::str::FromStr;

/// How to choose among servers that answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// As they are listed.
    #[default]
    Sequential,
    /// At random.
    Random,
    /// The one that answers in the shortest time first; now and then another one, whose time may have changed.
    Fastest,
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sequential" => Ok(Self::Sequential),
            "random" => Ok(Self::Random),
            "fastest" => Ok(Self::Fastest),
            other => Err(format!("{other:?} is not a policy; use sequential, random or fastest")),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sequential => "sequential",
            Self::Random => "random",
            Self::Fastest => "fastest",
        })
    }
}

/// What is known about a server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// It leads back here.
    pub is_loop: bool,
    /// It has not answered for a while.
    pub is_down: bool,
    /// Milliseconds until it answers.
    pub time: Option<f64>,
}

/// One question in so many goes to a server that is not the fastest.
const EXPLORE: u64 = 32;

/// The places of servers in the order in which to ask them. Those that lead back are left out, those that don't answer
/// come last. `chance` decides what is left to it.
#[must_use]
pub fn order(servers: &[View], policy: Policy, mut chance: u64) -> Vec<usize> {
    let mut places: Vec<usize> = (0..servers.len()).filter(|at| servers.get(*at).is_some_and(|s| !s.is_loop)).collect();
    let view = |at: usize| servers.get(at).copied().unwrap_or(View { is_loop: true, is_down: true, time: None });
    let explores = policy == Policy::Fastest && chance.is_multiple_of(EXPLORE);
    match policy {
        Policy::Sequential => {}
        Policy::Fastest if !explores => {
            // One whose time isn't known is to be known.
            places.sort_by(|a, b| view(*a).time.unwrap_or(0.0).total_cmp(&view(*b).time.unwrap_or(0.0)));
        }
        Policy::Random | Policy::Fastest => {
            for last in (1..places.len()).rev() {
                // The remainders of a number of 64 bits are even enough.
                let bound = last as u64 + 1;
                places.swap(last, usize::try_from(chance % bound).unwrap_or(0));
                chance /= bound;
            }
        }
    }
    places.sort_by_key(|at| view(*at).is_down);
    places
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn any_view() -> impl Strategy<Value = View> {
        (any::<bool>(), any::<bool>(), proptest::option::of(0.0..100.0)).prop_map(|(is_loop, is_down, time)| View {
            is_loop,
            is_down,
            time,
        })
    }

    proptest! {
        #[test]
        fn every_server_but_loops_is_asked_once_and_those_that_answer_first(
            servers in vec(any_view(), 0..8),
            policy in prop::sample::select(&[Policy::Sequential, Policy::Random, Policy::Fastest][..]),
            chance in any::<u64>(),
        ) {
            let order = order(&servers, policy, chance);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            let expected: Vec<usize> = (0..servers.len()).filter(|at| !servers[*at].is_loop).collect();
            prop_assert_eq!(sorted, expected);
            prop_assert!(order.is_sorted_by_key(|at| servers[*at].is_down));
        }
    }

    #[test]
    fn policies_choose_as_they_say() {
        let view = |time| View { is_loop: false, is_down: false, time: Some(time) };
        let servers = [view(3.0), view(1.0), view(2.0)];
        assert_eq!(order(&servers, Policy::Sequential, 7), [0, 1, 2]);
        assert_eq!(order(&servers, Policy::Fastest, 7), [1, 2, 0]);
        let firsts: std::collections::BTreeSet<usize> =
            (0..64).map(|chance| order(&servers, Policy::Random, chance)[0]).collect();
        assert_eq!(firsts.len(), 3);
        let explored = (0..64).filter(|chance| order(&servers, Policy::Fastest, *chance) != [1, 2, 0]).count();
        assert!((1..=2).contains(&explored));
    }
}
