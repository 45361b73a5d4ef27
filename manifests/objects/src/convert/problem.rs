//! What can be wrong with an object.

/// What is wrong, and in which field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Error {
    /// The field, as `spec.ports[0].port`.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The object has no name.
    #[error("missing; give the object a name")]
    NoName,
    /// Not an address.
    #[error("{0:?} is not an IP address; write it as 10.0.0.1 or fd00::1")]
    Address(String),
    /// An address of the wrong family for its place.
    #[error("{0:?} is not an address of type {1}; put it into a slice of its own type")]
    Family(String, &'static str),
    /// Not a prefix.
    #[error("{0:?} is not a CIDR; write it as 10.0.0.0/8 or fd00::/8")]
    Cidr(String),
    /// An exception that is not part of what it is excepted from.
    #[error("{0} is not a smaller part of {1}; correct one of them")]
    NotInside(String, String),
    /// Not a port number.
    #[error("{0} is not a port; use a number from 1 to 65535")]
    Port(i64),
    /// Not a port name.
    #[error("{0:?} is neither a port number nor a port name; a name has at most 15 of a-z, 0-9 and '-', with a letter")]
    PortName(String),
    /// A port range that can't be.
    #[error("{0} is not the end of a range; set a numeric `port` that is not greater")]
    EndPort(i32),
    /// A word that is none of those allowed.
    #[error("{0:?} is unknown; use {1}")]
    Choice(String, &'static str),
    /// A list that needs an entry.
    #[error("empty; it needs at least one entry")]
    Empty,
    /// A number out of its range.
    #[error("{0} is out of range; use {1} to {2}")]
    Range(i64, i64, i64),
    /// A peer that says nothing, or two things at once.
    #[error("needs a podSelector, a namespaceSelector or both, or an ipBlock alone; it matches nothing until then")]
    Peer,
    /// A selector's requirement that contradicts itself.
    #[error("{0} {1} values; give {2}")]
    Values(String, &'static str, &'static str),
    /// A label key or value that no label can have.
    #[error("{0:?} is not a label {1}; see the syntax of labels in the Kubernetes documentation")]
    Label(String, &'static str),
    /// A field that no object of the kind has.
    #[error("unknown field, ignored; is it misspelt or in the wrong place?")]
    UnknownField,
    /// Not a bandwidth.
    #[error(
        "{0:?} is not a bandwidth, so there is no limit; write bits per second, from 1k to 1P, such as 10M or 2.5Gi"
    )]
    Bandwidth(String),
    /// A field that is not known where each of them matters.
    #[error("unknown field, which this version can't enforce; correct it, or leave it out")]
    Unknown,
    /// Not of the type that it should have.
    #[error("this is not {0}; correct it")]
    Type(&'static str),
    /// A field that must be there.
    #[error("missing; write it")]
    Missing,
    /// Not one of several fields, but none or more.
    #[error("needs exactly one of {0}")]
    OneOf(&'static str),
    /// Not a prefix, or one with bits of a host.
    #[error("{0:?} is not a CIDR without host bits; write it as 10.0.0.0/8 or fd00::/8")]
    Network(String),
    /// A range of ports that is none.
    #[error("start {0} is not below end {1}; correct one of them, or use number for one port")]
    PortRange(u16, u16),
    /// Named ports where the peers have none.
    #[error("networks, nodes and domainNames have no named ports; write numbers, or a rule of their own for pods")]
    NoPortNames,
    /// Not the name of a domain.
    #[error("{0:?} is not a domain name; write it as example.com, or *.example.com for all names below it")]
    DomainName(String),
    /// Names of domains in a rule that denies or passes.
    #[error("domainNames are for rules that accept; deny or pass networks")]
    NamesAccept,
    /// A list that is too long.
    #[error("{0} entries, of which there may be {1}; use several peers")]
    TooMany(usize, usize),
    /// What holds as long as a problem does.
    #[error("{0}; {1}")]
    Until(Box<Problem>, &'static str),
    /// Not a list of ranges for pods.
    #[error("{0:?} is not a list of ranges; write one CIDR of each family at most: 10.244.1.0/24,fd00:10:244:1::/64")]
    Ranges(String),
    /// Ranges for pods in two places.
    #[error("has no effect, since spec.podCIDRs has other ranges; remove the annotation")]
    Beside,
    /// A service without addresses.
    #[error("no address; nothing allocates one here, so set spec.clusterIPs")]
    NoClusterIp,
}

/// Says where a problem is.
pub(super) trait At<T> {
    /// Adds the path of the field.
    fn at(self, path: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> At<T> for Result<T, Problem> {
    fn at(self, path: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|problem| problem.at(path()))
    }
}

impl Problem {
    /// Adds the path of the field.
    pub(crate) fn at(self, path: impl Into<String>) -> Error {
        Error { path: path.into(), problem: self }
    }
}

/// Keeps what could be read and notes what could not.
pub(super) fn note<T>(result: Result<T, Error>, notes: &mut Vec<Error>) -> Option<T> {
    result.map_err(|error| notes.push(error)).ok()
}
