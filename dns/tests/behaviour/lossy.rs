//! What gets lost between this server and upstream servers, or comes late or cut.

use std::sync::atomic::Ordering;

use hickory_proto::op::{Message, ResponseCode};

use crate::client::run;
use crate::elsewhere::found;
use crate::upstreams::{address, counted, fails, keeping, signed, udp};

/// The address for those who want signatures, and that for others.
fn by_signatures(question: &Message) -> Vec<u8> {
    let wants = question.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    found(question, if wants { "192.0.2.1" } else { "192.0.2.0" }).to_vec().unwrap()
}

#[test]
fn d31_signatures_are_asked_for_again_where_a_question_was_lost() {
    run(async {
        let (upstream, count) = counted(|question, number| match number {
            0 => vec![],
            _ => vec![by_signatures(question)],
        })
        .await;
        let tiers = keeping(&[upstream.address], 30, 0).await;
        // The second time it is kept.
        for _ in 0..2 {
            let said = tiers.udp(&signed("www.example.org A").to_vec().unwrap()).await;
            assert_eq!(address(&Message::from_vec(&said).unwrap()), "192.0.2.1");
        }
        assert_eq!(count.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn d31_what_comes_without_signatures_is_not_kept_for_those_who_want_them() {
    run(async {
        let (upstream, count) = counted(|question, _| match question.edns {
            Some(_) => vec![fails(question, ResponseCode::FormErr)],
            None => vec![by_signatures(question)],
        })
        .await;
        let tiers = keeping(&[upstream.address], 30, 0).await;
        // With an OPT record and without; then it is known that the server has none.
        for asked in [2, 3] {
            let said = tiers.udp(&signed("www.example.org A").to_vec().unwrap()).await;
            assert_eq!(address(&Message::from_vec(&said).unwrap()), "192.0.2.0");
            assert_eq!(count.load(Ordering::Relaxed), asked);
        }
        // For others it is all there is.
        for _ in 0..2 {
            assert_eq!(address(&udp(&tiers, "www.example.org A").await), "192.0.2.0");
        }
        assert_eq!(count.load(Ordering::Relaxed), 4);
    });
}
