//! Frames of tests as a kernel's test run takes them (`BPF_PROG_TEST_RUN`): the tables, the packet, and what has to come
//! out. [`super::record`] writes them while tests run, and `xtask/verifier` runs them through the committed object.
//!
//! Times in tables are seconds since boot, which differ from machine to machine: [`Entry::moved`] moves them along.

use std::string::String;
use std::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::catalog::TableId;
use crate::flow::{Flow, FragmentKey, FragmentPorts, PodFlows};
use crate::service::{Affinity, AffinityKey};

/// One line of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A packet to run.
    Step(Step),
    /// A packet that a kernel's test run can't have or would decide by what the test does not set.
    LeftOut {
        /// The test that has it.
        test: String,
        /// Why.
        reason: String,
    },
}

/// A packet at a hook of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Step {
    /// The test that has it.
    pub test: String,
    /// The program to run.
    pub program: String,
    /// The interface that it runs on.
    pub ifindex: u32,
    /// The second at which it ran.
    pub now: u32,
    /// Tables that the agent writes, whole; none if they are as in the step before.
    pub tables: Option<Vec<Entry>>,
    /// Tables that packets write, whole, before.
    pub before: Vec<Entry>,
    /// The same, after.
    pub after: Vec<Entry>,
    /// The packet, with its Ethernet header.
    pub sent: Vec<u8>,
    /// Its mark.
    pub mark: u32,
    /// The interface that it came in by.
    pub ingress: u32,
    /// Payload of each segment of an aggregate, else 0.
    pub segment_size: u32,
    /// What the program returns.
    pub verdict: u32,
    /// The reason under which it counts a drop, as the index in `DROPS`.
    pub counted: Option<u32>,
    /// The packet afterwards.
    pub got: Vec<u8>,
    /// Its mark.
    pub got_mark: u32,
}

/// An element of a table, as bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The table.
    pub table: TableId,
    /// Its key; of an array the index.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Entry {
    /// Of a table, with this key and value.
    pub(super) fn new(
        table: TableId,
        key: &(impl IntoBytes + Immutable + ?Sized),
        value: &(impl IntoBytes + Immutable + ?Sized),
    ) -> Self {
        Self { table, key: key.as_bytes().to_vec(), value: value.as_bytes().to_vec() }
    }

    /// The same with its times moved from one clock to another.
    ///
    /// # Panics
    /// When the value does not have its table's size.
    #[must_use]
    pub fn moved(&self, from: u32, to: u32) -> Self {
        let shift = |second: u32| second.wrapping_add(to.wrapping_sub(from));
        let size = "a value of the table's size";
        let value = match self.table {
            TableId::EstablishedFlows | TableId::OtherFlows => {
                let mut flow = Flow::read_from_bytes(&self.value).expect(size);
                flow.seen = shift(flow.seen as u32).into();
                flow.opened = shift(flow.opened);
                // The seconds of errors are 24 bits above their number; of a flow that had none there is no time.
                let errors = flow.errors.value;
                if errors != 0 {
                    flow.errors.value = shift(errors >> 8) << 8 | errors & 0xff;
                }
                flow.seal(flow.state.owner);
                flow.as_bytes().to_vec()
            }
            TableId::FlowCounts => {
                let mut flows = PodFlows::read_from_bytes(&self.value).expect(size);
                // What never opened anything has no time.
                if flows.opened.load() != 0 {
                    flows.second.store(shift(flows.second.load()));
                }
                flows.as_mut_bytes().to_vec()
            }
            TableId::Fragments => {
                let ports = FragmentPorts::read_from_bytes(&self.value).expect(size);
                let key = FragmentKey::read_from_bytes(&self.key).expect(size);
                FragmentPorts { seen: shift(ports.seen), ..ports }.sealed(key.tag()).as_bytes().to_vec()
            }
            TableId::Affinities => {
                let memory = Affinity::read_from_bytes(&self.value).expect(size);
                let key = AffinityKey::read_from_bytes(&self.key).expect(size);
                Affinity { seen: shift(memory.seen), ..memory }.sealed(key.tag()).as_bytes().to_vec()
            }
            _ => self.value.clone(),
        };
        Self { value, ..self.clone() }
    }
}

impl Record {
    /// Adds it to a recording.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Step(step) => {
                number(out, 1);
                bytes(out, step.test.as_bytes());
                bytes(out, step.program.as_bytes());
                number(out, step.ifindex);
                number(out, step.now);
                number(out, u32::from(step.tables.is_some()));
                if let Some(tables) = &step.tables {
                    entries(out, tables);
                }
                entries(out, &step.before);
                entries(out, &step.after);
                bytes(out, &step.sent);
                number(out, step.mark);
                number(out, step.ingress);
                number(out, step.segment_size);
                number(out, step.verdict);
                number(out, step.counted.map_or(0, |index| index + 1));
                bytes(out, &step.got);
                number(out, step.got_mark);
            }
            Self::LeftOut { test, reason } => {
                number(out, 0);
                bytes(out, test.as_bytes());
                bytes(out, reason.as_bytes());
            }
        }
    }

    /// Reads the first of a recording and moves on to the next; `None` when it is none, or cut off.
    pub fn read(recording: &mut &[u8]) -> Option<Self> {
        let mut reader = Reader(recording);
        let record = match reader.number()? {
            0 => Self::LeftOut { test: reader.text()?, reason: reader.text()? },
            1 => Self::Step(Step {
                test: reader.text()?,
                program: reader.text()?,
                ifindex: reader.number()?,
                now: reader.number()?,
                tables: if reader.number()? == 0 { None } else { Some(reader.entries()?) },
                before: reader.entries()?,
                after: reader.entries()?,
                sent: reader.bytes()?,
                mark: reader.number()?,
                ingress: reader.number()?,
                segment_size: reader.number()?,
                verdict: reader.number()?,
                counted: reader.number()?.checked_sub(1),
                got: reader.bytes()?,
                got_mark: reader.number()?,
            }),
            _ => return None,
        };
        *recording = reader.0;
        Some(record)
    }
}

fn number(out: &mut Vec<u8>, number: u32) {
    out.extend(number.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u32);
    out.extend(bytes);
}

fn entries(out: &mut Vec<u8>, entries: &[Entry]) {
    number(out, entries.len() as u32);
    for Entry { table, key, value } in entries {
        bytes(out, table.info().name.as_bytes());
        bytes(out, key);
        bytes(out, value);
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*number))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.number()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    fn entries(&mut self) -> Option<Vec<Entry>> {
        (0..self.number()?)
            .map(|_| Some(Entry { table: TableId::named(&self.text()?)?, key: self.bytes()?, value: self.bytes()? }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let entry = Entry::new(TableId::Uplinks, &2_u32, &[1_u8, 2, 3]);
        let step = Step {
            test: "a test".into(),
            tables: Some(std::vec![entry.clone()]),
            after: std::vec![entry],
            sent: std::vec![1; 60],
            counted: Some(3),
            ..Step::default()
        };
        let records = [Record::Step(step), Record::LeftOut { test: "other".into(), reason: "chance".into() }];
        let mut recording = Vec::new();
        records.iter().for_each(|record| record.write(&mut recording));
        let mut rest = &recording[..];
        assert_eq!([Record::read(&mut rest), Record::read(&mut rest)], records.map(Some));
        assert_eq!(Record::read(&mut rest), None);
        assert_eq!(Record::read(&mut &recording[..40]), None, "cut off");
    }

    #[test]
    fn times_move_with_the_clock_and_nothing_else_does() {
        let mut flow = Flow { opened: 990, service: 7, ..Flow::new() };
        flow.seen = 1000;
        flow.errors.value = 995 << 8 | 3;
        flow.seal(0x1234_5678);
        let entry = Entry { table: TableId::OtherFlows, key: Vec::new(), value: flow.as_bytes().to_vec() };
        let moved = Flow::read_from_bytes(&entry.moved(1000, 50).value).unwrap();
        assert_eq!((moved.seen, moved.opened, moved.service), (50, 40, 7));
        assert_eq!(moved.errors.value, 45 << 8 | 3, "the second of errors, not their number");
        assert!(moved.is_of(0x1234_5678) && !moved.is_of(0x1234_5679));
        assert_eq!(entry.moved(1000, 5).moved(5, 1000), entry, "before boot and back");
    }
}
