use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { all: 6, each: 4 };

/// The same with nothing but a list.
#[derive(Default)]
struct Naive {
    places: Vec<(Place, u8, Option<Since>)>,
    clock: u64,
}

impl Naive {
    fn count(&self, client: u8) -> usize {
        self.places.iter().filter(|(_, owner, _)| *owner == client).count()
    }

    fn victim(&self, client: u8) -> Result<Option<Place>, ()> {
        let idle = || self.places.iter().filter_map(|(place, owner, idle)| Some((*place, *owner, (*idle)?)));
        if self.count(client) >= BOUNDS.each {
            let own = idle().filter(|(_, owner, _)| *owner == client).min_by_key(|(.., since)| *since);
            return own.map(|(place, ..)| Some(place)).ok_or(());
        }
        if self.places.len() < BOUNDS.all {
            return Ok(None);
        }
        let heaviest = idle()
            .max_by_key(|(_, owner, since)| (matches!(since, Since::Leaving(_)), self.count(*owner), Reverse(*since)));
        heaviest.map(|(place, ..)| Some(place)).ok_or(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Admit(u8),
    Busy(usize),
    Idle(usize),
    Leave(usize),
    Remove(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_u8).prop_map(Step::Admit),
        1 => (0..6_usize).prop_map(Step::Busy),
        1 => (0..6_usize).prop_map(Step::Idle),
        1 => (0..6_usize).prop_map(Step::Leave),
        1 => (0..6_usize).prop_map(Step::Remove),
    ]
}

proptest! {
    #[test]
    fn a_crowd_is_the_naive_one(steps in vec(any_step(), 0..60)) {
        let mut crowd = Crowd::new(BOUNDS);
        let mut naive = Naive::default();
        for step in steps {
            let at = |index: usize| naive.places.get(index).map(|(place, ..)| *place);
            match step {
                Step::Admit(client) => {
                    let expected = naive.victim(client);
                    let stands = naive.clock;
                    let admitted = crowd.admit(&client, stands);
                    prop_assert_eq!(admitted.is_some(), expected.is_ok());
                    if let (Some((place, gone)), Ok(victim)) = (admitted, expected) {
                        prop_assert_eq!(gone.is_some(), victim.is_some());
                        naive.places.retain(|(place, ..)| Some(*place) != victim);
                        naive.clock += 1;
                        naive.places.push((place, client, Some(Since::Idle(naive.clock))));
                    }
                }
                Step::Busy(index) => {
                    if let Some(place) = at(index) {
                        crowd.busy(place);
                        naive.places[index].2 = None;
                    }
                }
                Step::Idle(index) => {
                    if let Some(place) = at(index) {
                        crowd.idle(place);
                        naive.clock += 1;
                        naive.places[index].2 = Some(Since::Idle(naive.clock));
                    }
                }
                Step::Leave(index) => {
                    if let Some(place) = at(index) {
                        crowd.leaves(place);
                        naive.clock += 1;
                        naive.places[index].2 = Some(Since::Leaving(naive.clock));
                    }
                }
                Step::Remove(index) => {
                    if let Some(place) = at(index) {
                        prop_assert!(crowd.remove(place).is_some());
                        naive.places.remove(index);
                    }
                }
            }
            prop_assert_eq!(crowd.len(), naive.places.len());
            prop_assert!(crowd.len() <= BOUNDS.all);
            for client in 0..5 {
                let count = crowd.clients.get(&client).map_or(0, |client| client.count);
                prop_assert_eq!(count, naive.count(client));
            }
        }
    }
}

#[test]
fn the_one_that_holds_the_most_loses_and_nobody_else() {
    let mut crowd = Crowd::new(Bounds { all: 5, each: 4 });
    crowd.admit(&"quiet", "quiet").unwrap();
    for _ in 0..100 {
        let (_, gone) = crowd.admit(&"loud", "loud").unwrap();
        assert_ne!(gone, Some("quiet"));
    }
    let (_, gone) = crowd.admit(&"third", "third").unwrap();
    assert_eq!(gone, Some("loud"));
    assert_eq!(crowd.shed(), Some("loud"));
}

#[test]
fn what_is_about_to_leave_goes_first_whoever_has_it() {
    let mut crowd = Crowd::new(Bounds { all: 4, each: 3 });
    let (leaving, _) = crowd.admit(&"quiet", "leaving").unwrap();
    for _ in 0..3 {
        crowd.admit(&"loud", "loud").unwrap();
    }
    crowd.leaves(leaving);
    assert_eq!(crowd.admit(&"third", "third").unwrap().1, Some("leaving"));
    // And of one's own, the youngest though it be.
    let (leaving, _) = crowd.admit(&"loud", "leaving").unwrap();
    crowd.leaves(leaving);
    assert_eq!(crowd.admit(&"loud", "loud").unwrap().1, Some("leaving"));
}

#[test]
fn a_place_that_is_free_is_taken_from_nobody() {
    let mut crowd = Crowd::new(Bounds { all: 2, each: 1 });
    assert!(crowd.admit_free(&'a', ()).is_some());
    assert!(crowd.admit_free(&'a', ()).is_none(), "it has all that one client may have");
    let place = crowd.admit_free(&'b', ()).unwrap();
    assert!(crowd.admit_free(&'c', ()).is_none(), "there is none");
    assert_eq!(crowd.len(), 2);
    crowd.remove(place);
    assert!(crowd.admit_free(&'c', ()).is_some());
}
