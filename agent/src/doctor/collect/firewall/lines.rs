//! Rules of nftables, as far as they decide about packets that pods send out of the node.
//!
//! A rule is a list of expressions: some load a part of the packet, some compare it, and the last decide. What is read here is
//! which packets a rule means by where they come from, and whether it refuses all that get to it.

use std::net::IpAddr;

use fairlead_cni::protocol::HOST_LINK_PREFIX;
use ipnetwork::IpNetwork;

use super::{GENERIC, NEW_RULE, attribute, be32, text, u16_at};

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The chain that it is in.
    pub(super) chain: String,
    /// Whether it drops or rejects whatever gets to it.
    pub(super) stops_all: bool,
    /// The packets that it accepts or sends to another chain, by where they come from.
    pub(super) passes: Vec<Origin>,
}

/// Where packets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// Interfaces by the beginning of their name, or by all of it with the zeros behind.
    Interface(Vec<u8>),
    /// Source addresses, of IPv4 or not, by the beginning of the address and those bits of it that count.
    Source {
        /// Whether it is IPv4.
        v4: bool,
        /// What is to be there.
        value: Vec<u8>,
        /// The bits that count.
        mask: Vec<u8>,
    },
}

impl Origin {
    /// Whether pods with addresses of this range are meant, all of them.
    fn covers(&self, range: IpNetwork) -> bool {
        match self {
            Self::Interface(name) => HOST_LINK_PREFIX.as_bytes().starts_with(name),
            Self::Source { v4, value, mask } => {
                let address = match range.network() {
                    IpAddr::V4(ip) => ip.octets().to_vec(),
                    IpAddr::V6(ip) => ip.octets().to_vec(),
                };
                let bits = mask.iter().map(|byte| byte.count_ones()).sum::<u32>();
                let mut bytes = value.iter().zip(mask).zip(&address);
                *v4 == range.is_ipv4()
                    && bits <= u32::from(range.prefix())
                    && bytes.all(|((value, mask), byte)| value == &(byte & mask))
            }
        }
    }
}

/// Whether rules mean this node's pods: their interfaces, or each of their ranges of the families that a table is for.
pub(super) fn let_pods_pass(lines: &[Line], family: &str, ranges: &[IpNetwork]) -> bool {
    let origins = || lines.iter().flat_map(|line| &line.passes);
    let of_table = |range: &&IpNetwork| family == "inet" || range.is_ipv4() == (family == "ip");
    let mut ranges = ranges.iter().filter(of_table).peekable();
    let by_range = ranges.peek().is_some() && ranges.all(|range| origins().any(|origin| origin.covers(*range)));
    let any_interface =
        |origin: &Origin| matches!(origin, Origin::Interface(name) if HOST_LINK_PREFIX.as_bytes().starts_with(name));
    by_range || origins().any(any_interface)
}

/// What asks for the rules of a table alone.
pub(super) fn of_table(name: &str) -> Vec<u8> {
    let length = 4 + name.len() + 1;
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(TABLE.to_ne_bytes());
    bytes.extend(name.as_bytes());
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

/// Attributes of a rule (include/uapi/linux/netfilter/nf_tables.h), and of an expression in it.
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const EXPRESSIONS: u16 = 4;
const NAME: u16 = 1;
const DATA: u16 = 2;

/// Of values, wherever they are.
const VALUE: u16 = 1;

pub(super) fn parse(message: &[u8]) -> Option<Line> {
    if u16_at(message, 4)? != NEW_RULE {
        return None;
    }
    let attributes = message.get(GENERIC..)?;
    let mut read = Reading::default();
    let mut rest = attribute(attributes, EXPRESSIONS).unwrap_or_default();
    while let (Some(length), Some(expression)) = (u16_at(rest, 0).map(usize::from), attribute(rest, 1)) {
        let name = attribute(expression, NAME).map(text).unwrap_or_default();
        read.expression(&name, attribute(expression, DATA).unwrap_or_default());
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let Reading { origins, stops, passes, conditional, .. } = read;
    Some(Line {
        chain: text(attribute(attributes, CHAIN)?),
        stops_all: stops && !conditional,
        passes: if passes { origins } else { Vec::new() },
    })
}

/// What an expression has loaded for those behind it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Loaded {
    #[default]
    Other,
    Interface,
    Source {
        v4: bool,
    },
}

/// A rule that is being read.
#[derive(Debug, Default)]
struct Reading {
    loaded: Loaded,
    mask: Option<Vec<u8>>,
    origins: Vec<Origin>,
    stops: bool,
    passes: bool,
    conditional: bool,
}

impl Reading {
    fn expression(&mut self, name: &str, data: &[u8]) {
        match name {
            "counter" | "log" => {}
            "immediate" => self.verdict(data),
            "reject" => self.stops = true,
            // As iptables has them.
            "target" => match attribute(data, NAME).map(text).as_deref() {
                Some("REJECT") => self.stops = true,
                _ => self.load(Loaded::Other),
            },
            "match" if attribute(data, NAME).map(text).as_deref() == Some("comment") => {}
            "meta" => self.load(meta(data)),
            "payload" => self.load(payload(data)),
            "bitwise" => self.mask = attribute(data, 4).and_then(|mask| attribute(mask, VALUE)).map(<[u8]>::to_vec),
            "cmp" => self.compare(data),
            _ => self.load(Loaded::Other),
        }
    }

    fn load(&mut self, loaded: Loaded) {
        (self.loaded, self.mask, self.conditional) = (loaded, None, true);
    }

    fn compare(&mut self, data: &[u8]) {
        /// `NFT_CMP_EQ`
        const EQUAL: u32 = 0;
        self.conditional = true;
        let value = attribute(data, 3).and_then(|value| attribute(value, VALUE)).map(<[u8]>::to_vec);
        let (Some(value), Some(EQUAL)) = (value, attribute(data, 2).and_then(be32)) else { return };
        let mask = self.mask.take().unwrap_or_else(|| vec![u8::MAX; value.len()]);
        match self.loaded {
            Loaded::Other => {}
            Loaded::Interface => self.origins.push(Origin::Interface(value)),
            Loaded::Source { v4 } => self.origins.push(Origin::Source { v4, value, mask }),
        }
    }

    fn verdict(&mut self, data: &[u8]) {
        const VERDICT: u16 = 2;
        const CODE: u16 = 1;
        let code =
            attribute(data, 2).and_then(|data| attribute(data, VERDICT)).and_then(|verdict| attribute(verdict, CODE));
        match code.and_then(be32).map(u32::cast_signed) {
            // NF_DROP
            Some(0) => self.stops = true,
            // NF_ACCEPT, NFT_JUMP and NFT_GOTO: firewalld has a chain for each zone.
            Some(1 | -3 | -4) => self.passes = true,
            // It loads something to be used.
            _ => self.conditional = true,
        }
    }
}

fn meta(data: &[u8]) -> Loaded {
    /// `NFT_META_IIFNAME`
    const IIFNAME: u32 = 6;
    match attribute(data, 2).and_then(be32) {
        Some(IIFNAME) => Loaded::Interface,
        _ => Loaded::Other,
    }
}

/// Source addresses are at 12 in IPv4 headers and at 8 in those of IPv6. As few bytes are loaded as are compared.
fn payload(data: &[u8]) -> Loaded {
    /// `NFT_PAYLOAD_NETWORK_HEADER`
    const NETWORK: u32 = 1;
    let field = |kind| attribute(data, kind).and_then(be32);
    match (field(2), field(3), field(4)) {
        (Some(NETWORK), Some(12), Some(1..=4)) => Loaded::Source { v4: true },
        (Some(NETWORK), Some(8), Some(2..=16)) => Loaded::Source { v4: false },
        _ => Loaded::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = [((4 + content.len()) as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn number(kind: u16, value: u32) -> Vec<u8> {
        nested(kind, &value.to_be_bytes())
    }

    fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
        nested(1, &[nested(NAME, &[name.as_bytes(), &[0]].concat()), nested(DATA, &data.concat())].concat())
    }

    fn iifname(name: &[u8]) -> Vec<u8> {
        [expression("meta", &[number(2, 6), number(1, 1)]), equals(0, name)].concat()
    }

    fn equals(op: u32, value: &[u8]) -> Vec<u8> {
        expression("cmp", &[number(1, 1), number(2, op), nested(3, &nested(VALUE, value))])
    }

    fn payload(base: u32, offset: u32, length: u32) -> Vec<u8> {
        expression("payload", &[number(1, 1), number(2, base), number(3, offset), number(4, length)])
    }

    fn verdict(code: i32) -> Vec<u8> {
        expression("immediate", &[number(1, 0), nested(2, &nested(2, &number(1, code.cast_unsigned())))])
    }

    fn counter() -> Vec<u8> {
        expression("counter", &[])
    }

    fn message(expressions: &[Vec<u8>]) -> Vec<u8> {
        let attributes = [nested(TABLE, b"filter\0"), nested(CHAIN, b"FORWARD\0"), nested(4, &expressions.concat())];
        [&[0; 4][..], &NEW_RULE.to_ne_bytes(), &[0; 10], &[2, 0, 0, 0], &attributes.concat()].concat()
    }

    fn line(expressions: &[Vec<u8>]) -> Line {
        parse(&message(expressions)).unwrap()
    }

    #[test]
    fn a_rule_without_conditions_stops_all() {
        let (drop, reject) = (verdict(0), expression("reject", &[number(1, 2)]));
        let target = |name: &str| expression("target", &[nested(NAME, &[name.as_bytes(), &[0]].concat())]);
        for all in [vec![drop.clone()], vec![counter(), reject], vec![counter(), target("REJECT")]] {
            assert_eq!(line(&all), Line { chain: "FORWARD".into(), stops_all: true, passes: vec![] });
        }
        for some in [
            vec![],
            vec![verdict(1)],
            vec![counter(), target("MARK")],
            vec![iifname(b"eth0\0"), drop.clone()],
            vec![expression("ct", &[number(2, 0)]), drop.clone()],
            vec![expression("limit", &[]), drop],
        ] {
            assert!(!line(&some).stops_all, "{some:?}");
        }
    }

    #[test]
    fn rules_let_pods_pass_by_interface_or_by_range() {
        let ranges: Vec<IpNetwork> = ["10.244.1.0/24", "fd00:10:244:1::/64"].map(|text| text.parse().unwrap()).into();
        let passes = |family: &str, lines: &[Vec<Vec<u8>>]| {
            let lines: Vec<Line> = lines.iter().map(|expressions| line(expressions)).collect();
            let_pods_pass(&lines, family, &ranges)
        };
        let by = |first: Vec<u8>, code| vec![first, counter(), verdict(code)];
        // As `iptables -i fl+`, or firewalld's dispatch to the chain of a zone.
        assert!(passes("inet", &[by(iifname(b"fl"), 1)]) && passes("ip", &[by(iifname(b"fl"), -4)]));
        assert!(!passes("inet", &[by(iifname(b"fl"), 0)]) && !passes("inet", &[by(iifname(b"flannel.1\0"), 1)]));
        let other = [expression("meta", &[number(2, 6), number(1, 1)]), equals(1, b"fl")].concat();
        assert!(!passes("inet", &[by(other, 1)]), "any but pods");

        let v4 = |bytes: &[u8]| by([payload(1, 12, bytes.len() as u32), equals(0, bytes)].concat(), -3);
        let mask = expression("bitwise", &[nested(4, &nested(VALUE, &[255, 240, 0, 0]))]);
        let masked = by([payload(1, 12, 4), mask, equals(0, &[10, 240, 0, 0])].concat(), -3);
        let v6 = by([payload(1, 8, 6), equals(0, &[0xfd, 0, 0, 0x10, 2, 0x44])].concat(), -3);
        assert!(passes("ip", &[v4(&[10, 244])]) && passes("ip", &[masked]));
        assert!(passes("inet", &[v4(&[10, 244]), v6.clone()]) && passes("ip6", &[v6]));
        assert!(!passes("inet", &[v4(&[10, 244])]), "IPv6 is stopped");
        assert!(!passes("ip", &[v4(&[10, 245])]) && !passes("ip", &[v4(&[10, 244, 1, 7])]), "one address of many");
        let destination = by([payload(1, 16, 2), equals(0, &[10, 244])].concat(), 1);
        assert!(!passes("ip", &[destination]));
        assert!(!let_pods_pass(&[line(&v4(&[10, 244]))], "ip", &[]), "ranges are not known");
    }

    #[test]
    fn messages_that_are_cut_off_are_read_as_far_as_they_go() {
        let whole = message(&[iifname(b"fl"), counter(), verdict(0)]);
        (0..whole.len()).for_each(|end| drop(parse(&whole[..end])));
    }

    #[test]
    fn a_table_is_asked_for_by_name() {
        assert_eq!(of_table("filter"), nested(TABLE, b"filter\0"));
    }
}
