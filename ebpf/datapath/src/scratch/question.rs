//! A DNS query that is read.

use crate::tables::dns::DnsFacts;

/// What was read of a DNS query, and what is to be said.
#[derive(Debug, Default, zerocopy::FromBytes)]
#[repr(C)]
pub struct Question {
    /// What follows the header of the message; then the name alone, as a [`crate::dns::DnsName`] has it, and zeros.
    pub words: [u64; Self::WORDS],
    /// What is at the name, if there is anything.
    pub facts: DnsFacts,
    /// Length of the name, with its root.
    pub name: u32,
    /// What of that is in front of the zone's.
    pub front: u32,
    /// The flags of the header.
    pub flags: u32,
    /// 1 if there is an OPT record.
    pub additional: u32,
    /// The size in it.
    pub size: u32,
    /// The flags in it.
    pub opt_flags: u32,
    /// A [`crate::dns::DnsAnswer`] as a number.
    pub answer: u32,
    /// Zero.
    pub pad: u32,
}

impl Question {
    /// Words that are read at most.
    pub const WORDS: usize = 32;
    /// The same in bytes. A power of two, by which the verifier is told that it is not exceeded.
    pub const BYTES: u32 = Self::WORDS as u32 * 8;
}
