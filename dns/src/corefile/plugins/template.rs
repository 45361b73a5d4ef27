//! Templates.

use hickory_proto::op::ResponseCode;

use super::super::syntax::{Directive, Mistake};
use super::rewrite::regex;
use super::{code, fall, record_type, zones};
use crate::WireName;
use crate::site::scope::Fall;
use crate::site::template::{Template, Text};

/// `template CLASS TYPE [ZONES...] { match, answer, authority, additional, rcode, fallthrough }`.
///
/// # Errors
/// It is something else, or has a place that can't be filled.
pub fn template(directive: &Directive, block: &[WireName]) -> Result<Template, Mistake> {
    let [class, kind, names @ ..] = &directive.args[..] else {
        return Err(directive.wrong("template needs a class and a type: template IN AAAA example.org { ... }"));
    };
    if !matches!(class.text.to_ascii_uppercase().as_str(), "IN" | "ANY") {
        return Err(class.wrong(format!("{:?}: the only class here is IN", class.text)));
    }
    let record_type = if kind.text.eq_ignore_ascii_case("ANY") { None } else { Some(record_type(kind)?) };
    let mut template = Template {
        record_type,
        zones: zones(names, block)?,
        matches: Vec::new(),
        answers: Vec::new(),
        authorities: Vec::new(),
        additionals: Vec::new(),
        code: ResponseCode::NoError,
        fall: Fall::Nowhere,
    };
    for line in &directive.body {
        let texts = || -> Result<Vec<Text>, Mistake> {
            line.args.iter().map(|word| Text::parse(&word.text).map_err(|error| word.wrong(error))).collect()
        };
        match line.plain()?.name.text.as_str() {
            "match" => template.matches.extend(line.args.iter().map(regex).collect::<Result<Vec<_>, _>>()?),
            "answer" => template.answers.extend(texts()?),
            "authority" => template.authorities.extend(texts()?),
            "additional" => template.additionals.extend(texts()?),
            "rcode" => template.code = code(line.one()?)?,
            "fallthrough" => template.fall = fall(line)?,
            // An extended error (RFC 8914) is a comment that most clients don't read.
            "upstream" | "ederror" => {}
            "var" | "expr" => {
                return Err(line.wrong(format!(
                    "template has no {} here: write what it says as a regular expression after match",
                    line.name.text
                )));
            }
            _ => return Err(line.unknown("template", "match, answer, authority, additional, rcode, fallthrough")),
        }
    }
    Ok(template)
}
