//! Answers that are made of a question.

use std::collections::BTreeMap;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Record;
use regex::Regex;

use crate::WireName;
use crate::name::strip_suffix;
use crate::wire::RecordType;

use super::scope::Fall;
use super::text;

/// A template.
#[derive(Debug, Clone)]
pub struct Template {
    /// The type; none: every one.
    pub record_type: Option<RecordType>,
    /// The zones.
    pub zones: Vec<WireName>,
    /// What names are like, one of these. None: all.
    pub matches: Vec<Regex>,
    /// The answer section.
    pub answers: Vec<Text>,
    /// The authority section.
    pub authorities: Vec<Text>,
    /// The additional section.
    pub additionals: Vec<Text>,
    /// The response code.
    pub code: ResponseCode,
    /// Which names that are like none go on.
    pub fall: Fall,
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        let expressions = |template: &Self| -> Vec<String> {
            template.matches.iter().map(|regex| regex.as_str().to_owned()).collect()
        };
        expressions(self) == expressions(other)
            && (&self.record_type, &self.zones, &self.code, &self.fall)
                == (&other.record_type, &other.zones, &other.code, &other.fall)
            && (&self.answers, &self.authorities, &self.additionals)
                == (&other.answers, &other.authorities, &other.additionals)
    }
}

/// The text of a record with places to fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name,
    Zone,
    Type,
    Match(usize),
    Group(String),
}

impl Text {
    /// Reads a text with places as `{{ .Name }}`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(source: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((before, after)) = rest.split_once("{{") {
            let (place, after) = after.split_once("}}").ok_or("{{ is not closed: write }} after it")?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(part(place.trim_matches('-').trim()).ok_or_else(|| {
                format!(
                    "{{{{{place}}}}} can't be filled here: use .Name, .Zone, .Type, .Class, .Match.N, index .Match N or \
                     .Group.NAME"
                )
            })?);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        // One without places is right or wrong now.
        let known: Option<String> =
            parts.iter().map(|part| if let Part::Text(text) = part { Some(text.as_str()) } else { None }).collect();
        if let Some(known) = known {
            text::record(&known)?;
        }
        Ok(Self(parts))
    }

    fn fill(&self, found: &Found<'_>) -> Option<Record> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Name => out.push_str(found.name),
                Part::Zone => out.push_str(found.zone),
                Part::Type => out.push_str(found.record_type),
                Part::Match(number) => out.push_str(found.numbered.get(*number)?),
                Part::Group(name) => out.push_str(found.named.get(name)?),
            }
        }
        text::record(&out).ok()
    }
}

fn part(place: &str) -> Option<Part> {
    let words: Vec<&str> = place.split_whitespace().collect();
    Some(match &words[..] {
        [".Name"] => Part::Name,
        [".Zone"] => Part::Zone,
        [".Type"] => Part::Type,
        [".Class"] => Part::Text("IN".to_owned()),
        ["index", ".Match", number] => Part::Match(number.parse().ok()?),
        ["index", ".Group", name] => Part::Group(name.trim_matches('"').to_owned()),
        [place] => match place.strip_prefix(".Match.") {
            Some(number) => Part::Match(number.parse().ok()?),
            None => Part::Group(place.strip_prefix(".Group.")?.to_owned()),
        },
        _ => return None,
    })
}

struct Found<'f> {
    name: &'f str,
    zone: &'f str,
    record_type: &'f str,
    numbered: Vec<String>,
    named: BTreeMap<String, String>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Filled {
    /// The response code.
    pub code: ResponseCode,
    /// The sections: answers, authorities, additional records.
    pub sections: [Vec<Record>; 3],
    /// A template said so, not only that none has anything to say.
    pub is_answer: bool,
}

impl Filled {
    fn only(code: ResponseCode) -> Self {
        Self { code, sections: Default::default(), is_answer: false }
    }
}

/// What templates say to a question with a name in lower case and wire format, spelled as its client has it. `None`:
/// somebody else may answer.
#[must_use]
pub fn answer(templates: &[Template], name: &[u8], spelled: &[u8], record_type: RecordType) -> Option<Filled> {
    for template in templates {
        if template.record_type.is_some_and(|own| own != record_type) {
            continue;
        }
        let zones = template.zones.iter().filter(|zone| strip_suffix(name, zone.as_wire()).is_some());
        let Some(zone) = zones.max_by_key(|zone| zone.as_wire().len()) else { continue };
        match template.fill(name, spelled, zone, record_type) {
            Some(filled) => return Some(filled),
            None if template.fall.through(name) => {}
            None => return Some(Filled::only(ResponseCode::ServFail)),
        }
    }
    None
}

impl Template {
    fn fill(&self, name: &[u8], spelled: &[u8], zone: &WireName, record_type: RecordType) -> Option<Filled> {
        // A name that has no plain text is like no expression; without one every name will do.
        let text = text::of_wire(name);
        if text.is_none() && !self.matches.is_empty() {
            return None;
        }
        let text = text.unwrap_or_default();
        let captures = self.matches.iter().find_map(|regex| Some((regex, regex.captures(&text)?)));
        if captures.is_none() && !self.matches.is_empty() {
            return None;
        }
        let mut numbered = vec![text.clone()];
        let mut named = BTreeMap::new();
        if let Some((regex, captures)) = &captures {
            let group = |at: usize| captures.get(at).map_or(String::new(), |group| group.as_str().to_owned());
            numbered = (0..captures.len()).map(group).collect();
            for (at, group_name) in regex.capture_names().enumerate() {
                named.insert(at.to_string(), group(at));
                if let Some(group_name) = group_name {
                    named.insert(group_name.to_owned(), group(at));
                }
            }
        }
        let kind = hickory_proto::rr::RecordType::from(record_type.0).to_string();
        let found = Found { name: &text, zone: &zone.to_string(), record_type: &kind, numbered, named };
        let owner = hickory_proto::serialize::binary::BinDecodable::from_bytes(spelled).ok();
        let fill = |texts: &[Text]| -> Option<Vec<Record>> {
            let mut records: Vec<Record> = texts.iter().map(|text| text.fill(&found)).collect::<Option<_>>()?;
            // The client's spelling, where it is the client's name.
            for record in &mut records {
                if let Some(owner) = owner.as_ref().filter(|owner| record.name == **owner) {
                    record.name = hickory_proto::rr::Name::clone(owner);
                }
            }
            Some(records)
        };
        let sections = [&self.answers, &self.authorities, &self.additionals].map(|texts| fill(texts));
        let [Some(answers), Some(authorities), Some(additionals)] = sections else {
            return Some(Filled::only(ResponseCode::ServFail));
        };
        Some(Filled { code: self.code, sections: [answers, authorities, additionals], is_answer: true })
    }
}

#[cfg(test)]
mod tests;
