use super::*;
use crate::corefile::{self, Corefile};

fn template(text: &str) -> Template {
    let directive = Corefile::directive("template", text).unwrap();
    corefile::template(&directive, &[WireName::parse(".").unwrap()]).unwrap()
}

fn asked(templates: &[Template], spelled: &str, kind: RecordType) -> Option<(ResponseCode, Vec<String>)> {
    let name = WireName::parse(spelled).unwrap();
    // Letters keep their case on the wire.
    let mut wire = name.as_wire().to_vec();
    let mut at = 0;
    for label in spelled.split('.') {
        wire[at + 1..=at + label.len()].copy_from_slice(label.as_bytes());
        at += label.len() + 1;
    }
    let filled = answer(templates, name.as_wire(), &wire, kind)?;
    Some((filled.code, filled.sections[0].iter().map(ToString::to_string).collect()))
}

#[test]
fn a_type_of_a_zone_has_no_records() {
    let templates = [template("IN AAAA example.org")];
    assert_eq!(asked(&templates, "a.example.org", RecordType::AAAA), Some((ResponseCode::NoError, vec![])));
    assert_eq!(asked(&templates, "a.example.org", RecordType::A), None);
    assert_eq!(asked(&templates, "a.example.com", RecordType::AAAA), None);
}

#[test]
fn a_wildcard_has_an_address() {
    let templates = [template("IN A apps.example {\n answer \"{{ .Name }} 60 IN A 192.0.2.1\"\n}")];
    let (code, answers) = asked(&templates, "X.apps.example", RecordType::A).unwrap();
    assert_eq!((code, &answers[..]), (ResponseCode::NoError, &["X.apps.example. 60 IN A 192.0.2.1".to_owned()][..]));
}

#[test]
fn expressions_fill_answers_and_decide_who_goes_on() {
    let text = |fall: &str| {
        format!(
            "IN A example {{\n match \"^ip-(?P<a>[0-9]*)-([0-9]*)[.]example[.]$\"\n \
             answer \"{{{{ .Name }}}} 60 IN A 10.0.{{{{ .Group.a }}}}.{{{{ index .Match 2 }}}}\"\n {fall}\n}}"
        )
    };
    let strict = [template(&text(""))];
    let (_, answers) = asked(&strict, "ip-3-7.example", RecordType::A).unwrap();
    assert_eq!(answers, ["ip-3-7.example. 60 IN A 10.0.3.7"]);
    assert_eq!(asked(&strict, "other.example", RecordType::A), Some((ResponseCode::ServFail, vec![])));
    // What is filled in may be no record.
    assert_eq!(asked(&strict, "ip-3-700.example", RecordType::A), Some((ResponseCode::ServFail, vec![])));
    let loose = [template(&text("fallthrough"))];
    assert_eq!(asked(&loose, "other.example", RecordType::A), None);
}

#[test]
fn what_can_not_be_filled_is_refused() {
    for (answer, word) in
        [("{{ .Nothing }} 60 IN A 192.0.2.1", ".Nothing"), ("{{ .Name", "}}"), ("x 60 IN A y", "\"y\"")]
    {
        assert!(Text::parse(answer).unwrap_err().contains(word), "{answer}");
    }
}
