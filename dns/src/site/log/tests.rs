use hickory_proto::op::{Edns, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::*;

fn exchanged(edns: bool) -> [Vec<u8>; 2] {
    let name = Name::from_ascii("Web.example.").unwrap();
    let mut query = Message::new(4711, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), RecordType::A));
    if edns {
        let mut opt = Edns::new();
        opt.set_max_payload(1232).set_dnssec_ok(true);
        query.edns = Some(opt);
    }
    let mut response = query.clone();
    response.metadata.message_type = MessageType::Response;
    response.metadata.authoritative = true;
    response.add_answer(Record::from_rdata(name, 5, RData::A(A([192, 0, 2, 1].into()))));
    [query, response].map(|message| message.to_vec().unwrap())
}

fn rule(zone: &str, sources: &[&str], kinds: Kinds) -> LogRule {
    LogRule {
        zones: vec![WireName::parse(zone).unwrap()],
        sources: sources.iter().map(|text| Prefix::parse(text).unwrap()).collect(),
        kinds,
        format: COMMON.to_owned(),
    }
}

#[test]
fn lines_are_those_of_coredns() {
    for (edns, words) in [(false, "29 false 512"), (true, "40 true 1232")] {
        let [query, response] = exchanged(edns);
        let exchange = Exchange {
            client: "[::ffff:10.244.1.7]:40864".parse().unwrap(),
            transport: Transport::Udp,
            query: &query,
            response: &response,
            took: Duration::from_micros(62),
        };
        let wanted = format!(
            "10.244.1.7:40864 - 4711 \"A IN web.example. udp {words}\" NOERROR qr,aa,rd {} 0.000062s",
            response.len()
        );
        let lines = |rule: LogRule| lines(|_| std::slice::from_ref(&rule), &exchange);
        assert_eq!(lines(rule(".", &[], Kinds::ALL)), [wanted]);
        assert!(lines(rule("other", &[], Kinds::ALL)).is_empty());
        assert!(lines(rule(".", &["10.244.2.0/24"], Kinds::ALL)).is_empty());
        assert_eq!(lines(rule("example", &["10.244.1.0/24"], Kinds::ALL)).len(), 1);
        assert!(lines(rule(".", &[], Kinds { success: false, ..Kinds::ALL })).is_empty());
    }
}

#[test]
fn formats_are_checked() {
    assert_eq!(format("{common}").unwrap(), COMMON);
    assert!(format("{remote} {nothing}").unwrap_err().contains("{nothing}"));
    assert!(format("{remote").unwrap_err().contains('}'));
}

#[test]
fn a_flood_is_cut_and_counted() {
    let gate = Gate::default();
    let start = Instant::now();
    let at = |millis| gate.pass(2, start + Duration::from_millis(millis));
    assert_eq!([at(0), at(1), at(2), at(999)], [Pass::Yes, Pass::Yes, Pass::No, Pass::No]);
    assert_eq!([at(1000), at(1001), at(1002)], [Pass::After(2), Pass::Yes, Pass::No]);
    assert_eq!(Gate::default().pass(0, start), Pass::No);
}
