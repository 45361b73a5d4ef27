use hickory_proto::op::OpCode;
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::{A, CNAME};
use proptest::prelude::*;

use super::*;
use crate::corefile::{self, Corefile};

fn rule(text: &str) -> Rewrite {
    corefile::rewrite(&Corefile::directive("rewrite", text).unwrap()).unwrap()
}

fn name(text: &str) -> Name {
    text::name(text).unwrap()
}

/// What a question becomes, and what its answer's names become on the way back.
fn through(rules: &[&str], asked: &str, kind: RecordType) -> Option<(String, RecordType, Vec<String>)> {
    let rules: Vec<Rewrite> = rules.iter().map(|text| rule(text)).collect();
    let wire = WireName::parse(asked).unwrap();
    let Rewritten { name: to, record_type, undo } = rewrite(&rules, wire.as_wire(), kind).unwrap()?;
    let asked_instead = name(&to.to_string());
    let mut message = Message::response(1, OpCode::Query);
    let target = name(&format!("target.{to}"));
    message.add_answer(Record::from_rdata(asked_instead.clone(), 60, RData::CNAME(CNAME(target.clone()))));
    message.add_answer(Record::from_rdata(target, 60, RData::A(A([192, 0, 2, 1].into()))));
    undo.apply(&mut message, &asked_instead, &name(asked));
    Some((to.to_string(), record_type, message.answers.iter().map(ToString::to_string).collect()))
}

#[test]
fn names_change_and_change_back() {
    for (rules, asked, to, back) in [
        (&["name a.example b.example"][..], "a.example", "b.example.", "a.example. 60 IN CNAME target.b.example."),
        (&["name exact A.example b.example"], "a.example", "b.example.", "a.example. 60 IN CNAME target.b.example."),
        (
            &["name suffix .old.example .new.example answer auto"],
            "x.old.example",
            "x.new.example.",
            "x.old.example. 60 IN CNAME target.x.old.example.",
        ),
        (&["name prefix www web"], "www.example", "web.example.", "www.example. 60 IN CNAME target.web.example."),
        (
            &["name substring .us-west-1.example.org .us-west-1.consul"],
            "ftp.us-west-1.example.org",
            "ftp.us-west-1.consul.",
            "ftp.us-west-1.example.org. 60 IN CNAME target.ftp.us-west-1.consul.",
        ),
        (
            &[
                "name regex (.*)-(us-west-1)\\.coredns\\.rocks {1}.service.{2}.consul answer name (.*)\\.service\\.(us-west-1)\\.consul {1}-{2}.coredns.rocks",
            ],
            "ftp-us-west-1.coredns.rocks",
            "ftp.service.us-west-1.consul.",
            "ftp-us-west-1.coredns.rocks. 60 IN CNAME target.ftp.service.us-west-1.consul.",
        ),
        (
            &["continue name suffix .a .b answer auto", "stop name suffix .b .c answer auto", "name suffix .c .d"],
            "x.a",
            "x.c.",
            "x.a. 60 IN CNAME target.x.a.",
        ),
    ] {
        let (found, kind, answers) = through(rules, asked, RecordType::A).unwrap();
        assert_eq!((found.as_str(), kind, answers[0].as_str()), (to, RecordType::A, back), "{rules:?}");
    }
}

#[test]
fn what_no_rule_is_for_stays() {
    for (rules, asked) in [
        (&["name a.example b.example"][..], "aa.example"),
        (&["name suffix .old.example .new.example"], "old.example"),
        (&["name prefix www web"], "wwwx.example"),
        (&["type AAAA A"], "a.example"),
        (&[], "a.example"),
    ] {
        assert_eq!(through(rules, asked, RecordType::A), None, "{rules:?}");
    }
}

#[test]
fn types_and_ttls_change() {
    let (to, kind, _) = through(&["type AAAA A"], "a.example", RecordType::AAAA).unwrap();
    assert_eq!((to.as_str(), kind), ("a.example.", RecordType::A));
    for (rule, ttl) in [
        ("ttl suffix .example 15", 15),
        ("ttl a.example 70-90", 70),
        ("ttl a.example -30", 30),
        ("ttl a.example 10-", 60),
    ] {
        let (_, _, answers) = through(&[rule], "a.example", RecordType::A).unwrap();
        assert_eq!(answers[1], format!("target.a.example. {ttl} IN A 192.0.2.1"), "{rule}");
    }
}

#[test]
fn what_becomes_no_name_is_an_error() {
    let long = "x".repeat(64);
    let rules = [rule(&format!("name suffix .a .{long}."))];
    let asked = WireName::parse("x.a").unwrap();
    assert!(matches!(rewrite(&rules, asked.as_wire(), RecordType::A), Err(NameError::Label(_))));
}

proptest! {
    #[test]
    fn an_answer_has_the_questions_name_again(
        kind in prop_oneof![Just("exact"), Just("prefix"), Just("suffix"), Just("substring")],
        labels in proptest::collection::vec("[a-z0-9]{1,5}", 1..5),
        at in 0..4_usize,
        to in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}",
    ) {
        let asked = labels.join(".");
        let at = at % labels.len();
        let from = match kind {
            "exact" => asked.clone(),
            "prefix" => labels[..=at].join("."),
            "suffix" => labels[at..].join("."),
            _ => labels[at].clone(),
        };
        let auto = if kind == "exact" { "" } else { " answer auto" };
        let (found, _, answers) =
            through(&[&format!("name {kind} {from} {to}{auto}")], &asked, RecordType::A).expect("the rule is for it");
        prop_assert!(WireName::parse(&found).is_ok());
        let owner = format!("{asked}. 60 IN CNAME ");
        prop_assert!(answers[0].starts_with(&owner), "{} is not of {}", answers[0], owner);
    }
}
