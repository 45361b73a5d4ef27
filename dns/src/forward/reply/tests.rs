use hickory_proto::op::{MessageType, OpCode, Query};
use hickory_proto::rr::RecordType as Kind;
use hickory_proto::rr::rdata::{A, CNAME, SOA};

use hickory_proto::op::Edns;
use hickory_proto::rr::rdata::AAAA;
use proptest::prelude::*;

use super::super::question::Wants;
use super::*;
use crate::WireName;

const MANNER: Manner = Manner { recursion: true, max_udp: 1232 };

fn question() -> Question {
    let name = WireName::parse("www.example.org").unwrap();
    Question::new(name.as_wire(), RecordType::A, Wants::default())
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn message(records: Vec<Record>) -> Message {
    let mut message = Message::new(9, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(name("wWw.eXample.org."), Kind::A));
    message.answers = records;
    message
}

fn address(owner: &str, last: u8, ttl: u32) -> Record {
    Record::from_rdata(name(owner), ttl, RData::A(A::new(192, 0, 2, last)))
}

fn written(reply: &Reply, id: u16, limit: usize, age: u32, most: u32) -> Message {
    let spelled = [b"\x03WWW\x07example\x03ORG\x00" as &[u8], &[0, 1, 0, 1]].concat();
    let client = Client {
        id,
        flags: flags::RECURSION_DESIRED,
        question: &spelled,
        edns: Some(PlainEdns { size: 1232, dnssec_ok: false }),
        limit,
    };
    let mut out = Vec::new();
    reply.write(&client, age, most, MANNER, &mut out);
    assert!(out.len() <= limit);
    Message::from_vec(&out).unwrap()
}

#[test]
fn a_response_has_the_clients_spelling_and_what_is_left_of_the_ttls() {
    let alias = Record::from_rdata(name("wwW.example.org."), 300, RData::CNAME(CNAME(name("cdn.example.net."))));
    let records = vec![alias, address("cdn.example.net.", 1, 60), address("cdn.example.net.", 2, 60)];
    let reply = Reply::of(message(records), &question()).unwrap();
    assert_eq!(reply.lifetime(), Some(Lifetime::Positive(60)));
    let response = written(&reply, 0, 1232, 7, 120);
    assert_eq!(response.queries[0].name.to_string(), "WWW.example.ORG.");
    let lines: Vec<_> = response.answers.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "WWW.example.ORG. 113 IN CNAME cdn.example.net.",
            "cdn.example.net. 53 IN A 192.0.2.1",
            "cdn.example.net. 53 IN A 192.0.2.2"
        ]
    );
    assert!(response.metadata.recursion_available && response.metadata.recursion_desired);
    assert!(!response.metadata.authoritative && response.edns.is_some());
}

#[test]
fn addresses_take_turns() {
    let reply = Reply::of(message((1..=3).map(|n| address("www.example.org.", n, 60)).collect()), &question()).unwrap();
    let firsts: Vec<_> = (0..4).map(|id| written(&reply, id, 1232, 0, 60).answers[0].data.to_string()).collect();
    assert_eq!(firsts, ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1"]);
    assert_eq!(written(&reply, 1, 1232, 0, 60).answers.len(), 3);
}

#[test]
fn what_does_not_fit_is_cut_behind_a_record() {
    let reply =
        Reply::of(message((1..=100).map(|n| address("www.example.org.", n, 60)).collect()), &question()).unwrap();
    for limit in 512..600 {
        let response = written(&reply, 0, limit, 0, 60);
        assert!(response.metadata.truncation);
        assert_eq!(response.answers.len(), (limit - 12 - 21 - 11) / 16);
    }
    assert!(!written(&reply, 0, 65535, 0, 60).metadata.truncation);
}

#[test]
fn denials_live_as_long_as_the_zone_says() {
    let soa = |ttl, minimum| {
        let data = SOA::new(name("ns."), name("host."), 1, 2, 3, 4, minimum);
        Record::from_rdata(name("example.org."), ttl, RData::SOA(data))
    };
    let denial = |code, soa: Option<Record>| {
        let mut message = message(vec![]);
        message.metadata.response_code = code;
        message.authorities = soa.into_iter().collect();
        Reply::of(message, &question()).unwrap().lifetime()
    };
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        assert_eq!(denial(code, Some(soa(900, 60))), Some(Lifetime::Negative(60)));
        assert_eq!(denial(code, Some(soa(20, 60))), Some(Lifetime::Negative(20)));
        // Without an SOA nobody says how long (RFC 2308 section 5).
        assert_eq!(denial(code, None), None);
    }
    assert_eq!(denial(ResponseCode::ServFail, Some(soa(900, 60))), None);
}

#[test]
fn an_alias_is_kept_with_its_end_or_with_the_word_that_there_is_none() {
    let alias = || Record::from_rdata(name("www.example.org."), 300, RData::CNAME(CNAME(name("cdn.example.net."))));
    let lifetime = |kind, answers: Vec<Record>, soa: bool| {
        let asked = WireName::parse("www.example.org").unwrap();
        let mut message = message(answers);
        message.queries[0].query_type = kind;
        if soa {
            let data = SOA::new(name("ns."), name("host."), 1, 2, 3, 4, 60);
            message.authorities = vec![Record::from_rdata(name("example.net."), 900, RData::SOA(data))];
        }
        Reply::of(message, &Question::new(asked.as_wire(), RecordType(kind.into()), Wants::default()))
            .unwrap()
            .lifetime()
    };
    assert_eq!(lifetime(Kind::A, vec![alias()], false), None);
    assert_eq!(lifetime(Kind::A, vec![alias()], true), Some(Lifetime::Negative(60)));
    assert_eq!(
        lifetime(Kind::A, vec![alias(), address("cdn.example.net.", 1, 90)], false),
        Some(Lifetime::Positive(90))
    );
    for kind in [Kind::CNAME, Kind::ANY] {
        assert_eq!(lifetime(kind, vec![alias()], false), Some(Lifetime::Positive(300)));
    }
}

#[test]
fn a_response_that_was_cut_is_not_kept() {
    let mut cut = message(vec![address("www.example.org.", 1, 60)]);
    cut.metadata.truncation = true;
    let reply = Reply::of(cut, &question()).unwrap();
    assert_eq!(reply.lifetime(), None);
    assert!(written(&reply, 0, 1232, 0, 60).metadata.truncation);
}

/// Which records, beside addresses of the name that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Besides {
    Nothing,
    Alias,
    OtherOwner,
    OtherType,
    Authority,
    Additional,
}

proptest! {
    #[test]
    fn addresses_are_kept_as_they_came_and_as_they_would_be_written(
        all in proptest::collection::vec((any::<u32>(), 0..i32::MAX.cast_unsigned()), 0..40),
        v6 in any::<bool>(),
        edns in any::<bool>(),
        (authentic, truncated) in any::<(bool, bool)>(),
        code in prop_oneof![4 => Just(ResponseCode::NoError), 1 => Just(ResponseCode::NXDomain)],
        besides in prop::sample::select(&[
            Besides::Nothing, Besides::Nothing, Besides::Nothing, Besides::Alias, Besides::OtherOwner, Besides::OtherType,
            Besides::Authority, Besides::Additional,
        ][..]),
        cut in 0..4_usize,
    ) {
        let asked = WireName::parse("www.example.org").unwrap();
        let kind = if v6 { RecordType::AAAA } else { RecordType::A };
        let question = Question::new(asked.as_wire(), kind, Wants::default());
        let mut message = message(Vec::new());
        message.queries[0].query_type = if v6 { Kind::AAAA } else { Kind::A };
        let data = |number: u32| match v6 {
            true => RData::AAAA(AAAA(u128::from(number).into())),
            false => RData::A(A(number.into())),
        };
        let owner = name("wWw.eXample.org.");
        message.answers = all.iter().map(|(number, ttl)| Record::from_rdata(owner.clone(), *ttl, data(*number))).collect();
        let other = Record::from_rdata(name("a.example.org."), 7, data(1));
        match besides {
            Besides::Nothing => {}
            Besides::Alias => message.answers.insert(0, Record::from_rdata(owner, 7, RData::CNAME(CNAME(name("a.b."))))),
            Besides::OtherOwner => message.answers.push(other),
            Besides::OtherType => message.answers.push(Record::from_rdata(owner, 7, RData::CNAME(CNAME(name("a.b."))))),
            Besides::Authority => message.authorities.push(other),
            Besides::Additional => message.additionals.push(other),
        }
        message.edns = edns.then(Edns::new);
        (message.metadata.authentic_data, message.metadata.truncation) = (authentic, truncated);
        message.metadata.response_code = code;
        let mut bytes = encode(&message, usize::MAX);
        let plain = Reply::plain(&bytes, &question);
        let is_plain = besides == Besides::Nothing && !all.is_empty() && code == ResponseCode::NoError;
        prop_assert_eq!(plain.is_some(), is_plain);
        if let Some(plain) = plain {
            prop_assert_eq!(Some(plain), Reply::of(message, &question));
        }
        // Half a message is none.
        bytes.truncate(bytes.len() - cut);
        prop_assert!(cut == 0 || Reply::plain(&bytes, &question).is_none());
    }
}
