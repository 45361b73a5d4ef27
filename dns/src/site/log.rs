//! One line for each query, of those that somebody wants to see.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};

use crate::WireName;
use crate::manner::Transport;
use crate::wire::{Header, flags};

use super::acl::Prefix;
use super::scope::covers;

/// CoreDNS' `{common}` and `{combined}`.
pub const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration}";

/// What may stand in braces.
const PLACES: [&str; 16] = [
    "remote", "port", ">id", "type", "class", "name", "proto", "size", ">do", ">bufsize", "rcode", ">rflags", "rsize",
    "duration", ">opcode", ">rcode",
];

/// Which queries are logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRule {
    /// Names in these zones.
    pub zones: Vec<WireName>,
    /// Clients in these networks; none: all.
    pub sources: Vec<Prefix>,
    /// Answers of these kinds.
    pub kinds: Kinds,
    /// What a line says.
    pub format: String,
}

/// Kinds of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds {
    /// Records.
    pub success: bool,
    /// That there are none.
    pub denial: bool,
    /// That something is wrong.
    pub error: bool,
}

impl Kinds {
    /// All.
    pub const ALL: Self = Self { success: true, denial: true, error: true };
    /// None.
    pub const NONE: Self = Self { success: false, denial: false, error: false };
}

/// Checks the text of a line.
///
/// # Errors
/// The first place that can't be filled.
pub fn format(text: &str) -> Result<String, String> {
    let text = text.replace("{common}", COMMON).replace("{combined}", COMMON);
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once('{') {
        let (place, after) = after.split_once('}').ok_or("a { is not closed: write } after its word")?;
        if !PLACES.contains(&place) {
            return Err(format!("{{{place}}} can't be logged here: use {{{}}}", PLACES.join("}, {")));
        }
        rest = after;
    }
    Ok(text)
}

/// A query and its response.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'e> {
    /// Who asked.
    pub client: SocketAddr,
    /// Over what.
    pub transport: Transport,
    /// The query.
    pub query: &'e [u8],
    /// The response.
    pub response: &'e [u8],
    /// How long it took.
    pub took: Duration,
}

/// The lines that the rules for a query's name want of it.
#[must_use]
pub fn lines<'r>(rules: impl FnOnce(&[u8]) -> &'r [LogRule], exchange: &Exchange<'_>) -> Vec<String> {
    let Ok(query) = Message::from_vec(exchange.query) else { return Vec::new() };
    let Some(question) = query.queries.first() else { return Vec::new() };
    let name = crate::name::wire_of(question.name()).to_ascii_lowercase();
    let client = exchange.client.ip().to_canonical();
    let meant = |rule: &&LogRule| {
        covers(&rule.zones, &name)
            && (rule.sources.is_empty() || rule.sources.iter().any(|source| source.contains(client)))
    };
    let mut meant = rules(&name).iter().filter(meant).peekable();
    if meant.peek().is_none() {
        return Vec::new();
    }
    let Ok(response) = Message::from_vec(exchange.response) else { return Vec::new() };
    let (kind, code) = (kind(&response), response.metadata.response_code);
    let of_kind = |rule: &&LogRule| match kind {
        Kind::Success => rule.kinds.success,
        Kind::Denial => rule.kinds.denial,
        Kind::Error => rule.kinds.error,
    };
    // Once each: rules may say the same.
    let mut lines: Vec<String> = Vec::new();
    for rule in meant.filter(of_kind) {
        let line = line(&rule.format, exchange, &query, client, code);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

enum Kind {
    Success,
    Denial,
    Error,
}

fn kind(response: &Message) -> Kind {
    match response.metadata.response_code {
        ResponseCode::NoError if !response.answers.is_empty() => Kind::Success,
        ResponseCode::NoError | ResponseCode::NXDomain => Kind::Denial,
        _ => Kind::Error,
    }
}

fn line(format: &str, exchange: &Exchange<'_>, query: &Message, client: IpAddr, code: ResponseCode) -> String {
    let mut out = String::with_capacity(160);
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (place, after) = after.split_once('}').unwrap_or((after, ""));
        fill(place, exchange, query, client, code, &mut out);
        rest = after;
    }
    out + rest
}

fn fill(place: &str, exchange: &Exchange<'_>, query: &Message, client: IpAddr, code: ResponseCode, out: &mut String) {
    let Some(question) = query.queries.first() else { return };
    let edns = query.edns.as_ref();
    // Writing to a string can't fail.
    let _ = match place {
        "remote" if client.is_ipv6() => write!(out, "[{client}]"),
        "remote" => write!(out, "{client}"),
        "port" => write!(out, "{}", exchange.client.port()),
        ">id" => write!(out, "{}", query.metadata.id),
        ">opcode" => write!(out, "{}", u8::from(query.metadata.op_code)),
        "type" => write!(out, "{}", question.query_type()),
        "class" => write!(out, "{}", question.query_class()),
        "name" => {
            let name = crate::name::wire_of(question.name());
            for label in crate::name::labels(&name) {
                let _ = write!(out, "{}.", label.to_ascii_lowercase().escape_ascii());
            }
            if name.len() <= 1 { write!(out, ".") } else { Ok(()) }
        }
        "proto" => write!(out, "{}", exchange.transport.name()),
        "size" => write!(out, "{}", exchange.query.len()),
        ">do" => write!(out, "{}", edns.is_some_and(|edns| edns.flags().dnssec_ok)),
        ">bufsize" => {
            let most = if exchange.transport == Transport::Udp { 512 } else { 65535 };
            write!(out, "{}", edns.map_or(most, |edns| edns.max_payload().max(512)))
        }
        "rcode" => write!(out, "{}", code_name(code)),
        ">rcode" => write!(out, "{}", u16::from(code)),
        ">rflags" => write!(out, "{}", flag_names(exchange.response)),
        "rsize" => write!(out, "{}", exchange.response.len()),
        "duration" => write!(out, "{}s", exchange.took.as_secs_f64()),
        _ => Ok(()),
    };
}

fn code_name(code: ResponseCode) -> String {
    let names = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
    let number = u16::from(code);
    names.get(usize::from(number)).map_or_else(|| format!("RCODE{number}"), |name| (*name).to_owned())
}

fn flag_names(message: &[u8]) -> String {
    let Some(header) = Header::read(message) else { return String::new() };
    let names = [
        (flags::RESPONSE, "qr"),
        (flags::AUTHORITATIVE, "aa"),
        (flags::TRUNCATED, "tc"),
        (flags::RECURSION_DESIRED, "rd"),
        (flags::RECURSION_AVAILABLE, "ra"),
        (flags::AUTHENTIC_DATA, "ad"),
        (flags::CHECKING_DISABLED, "cd"),
    ];
    let set: Vec<&str> = names.iter().filter(|(bit, _)| header.flags & bit != 0).map(|(_, name)| *name).collect();
    set.join(",")
}

/// Lets so many lines through in a second, and says how many it did not.
#[derive(Debug, Default)]
pub struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    second: Option<Instant>,
    passed: u32,
    left_out: u64,
}

/// What a [`Gate`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The line may be written.
    Yes,
    /// It may, and so many before it were left out.
    After(u64),
    /// It may not.
    No,
}

impl Gate {
    /// Whether a line may be written now.
    pub fn pass(&self, per_second: u32, now: Instant) -> Pass {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = state.second.is_none_or(|second| now.saturating_duration_since(second) >= Duration::from_secs(1));
        if is_new {
            (state.second, state.passed) = (Some(now), 0);
        }
        if state.passed >= per_second {
            state.left_out += 1;
            return Pass::No;
        }
        state.passed += 1;
        match std::mem::take(&mut state.left_out) {
            0 => Pass::Yes,
            left_out => Pass::After(left_out),
        }
    }
}

#[cfg(test)]
mod tests;
