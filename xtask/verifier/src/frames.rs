//! Frames of the walk's tests, run through the object's programs by `BPF_PROG_TEST_RUN`. What comes out has to be what
//! the tests' own model of the kernel made of it: verdict, bytes, mark, counted drop, and the tables that packets write.

use std::{
    collections::{
        BTreeMap, BTreeSet,
        btree_map::Entry::{Occupied, Vacant},
    },
    fmt::Write as _,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
    programs::{Program, SchedClassifier, TestRun as _, TestRunOptions},
};
use fairlead_datapath::catalog::TableId;
use fairlead_datapath::testing::{Entry, Record, Step};
use nix::time::{ClockId, clock_gettime};

use crate::{
    links,
    store::{self, Store},
};

/// Tables that packets write.
const WRITTEN: [TableId; 8] = {
    use TableId::{Affinities, EstablishedFlows, FlowCounts, Fragments, HostFlows, OtherFlows, Paces, PortSets};
    [Affinities, OtherFlows, EstablishedFlows, Fragments, HostFlows, Paces, FlowCounts, PortSets]
};

/// The one of them that has too many elements to read all after each frame: those that a frame names are read, and all at
/// the end, when none may be left.
const COUNTERS: TableId = TableId::PortShares;

/// Room for what a program makes of a packet.
const ROOM: usize = 4096;

/// `struct __sk_buff` (include/uapi/linux/bpf.h): its size, and the offsets of what a test run may set.
mod context {
    pub(super) const SIZE: usize = 192;
    pub(super) const MARK: usize = 8;
    pub(super) const INGRESS_IFINDEX: usize = 36;
    pub(super) const IFINDEX: usize = 40;
    pub(super) const GSO_SIZE: usize = 176;
}

/// How often a frame is run before it must have fitted into one second of the clock.
const TRIES: u32 = 5;

/// Runs a recording through programs that are loaded, and prints a line about each test; whether all was as recorded. With a
/// number of runs, the last frame of each test is run so often, and how long that takes is printed as well.
pub(crate) fn run(ebpf: &mut Ebpf, recording: &[u8], runs: Option<u32>) -> Result<bool> {
    let records = read(recording)?;
    let steps = || records.iter().filter_map(|record| if let Record::Step(step) = record { Some(step) } else { None });
    links::make(&steps().map(|step| step.ifindex).collect())?;
    let mut kernel = Kernel::new(ebpf)?;
    let mut tests: BTreeMap<&str, Test<'_>> = BTreeMap::new();
    let last: BTreeMap<&str, &Step> = steps().map(|step| (step.test.as_str(), step)).collect();
    for record in &records {
        match record {
            Record::Step(step) => {
                let mut result = kernel.run(step);
                if let (Some(runs), true) = (runs, std::ptr::eq(last[step.test.as_str()], step)) {
                    result = result.and_then(|()| kernel.measure(step, runs));
                }
                let test = tests.entry(&step.test).or_default();
                test.ran += 1;
                if let Err(error) = result {
                    test.failures.push(format!("{} of frame {}: {error:#}", step.program, test.ran));
                }
            }
            Record::LeftOut { test, reason } => {
                *tests.entry(test).or_default().left_out.entry(reason).or_default() += 1;
            }
        }
    }
    for (name, test) in &tests {
        test.print(name);
    }
    kernel.finish()?;
    Ok(tests.values().all(|test| test.failures.is_empty()))
}

fn read(mut recording: &[u8]) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    while !recording.is_empty() {
        records.push(Record::read(&mut recording).context("the recording is damaged: record it again")?);
    }
    ensure!(!records.is_empty(), "nothing was recorded");
    Ok(records)
}

/// What became of a test's frames.
#[derive(Default)]
struct Test<'a> {
    ran: u32,
    failures: Vec<String>,
    left_out: BTreeMap<&'a str, u32>,
}

impl Test<'_> {
    fn print(&self, name: &str) {
        if let Some(first) = self.failures.first() {
            let text = crate::load::one_line(&format!("{} of {} frames: {first}", self.failures.len(), self.ran));
            println!("fairlead-verifier\tframes-failed\t{name}\t{text}");
        } else if self.ran > 0 {
            println!("fairlead-verifier\tframes\t{name}\t{}", self.ran);
        }
        for (reason, count) in &self.left_out {
            println!("fairlead-verifier\tleft-out\t{name}\t{count}\t{reason}");
        }
    }
}

/// Elements of tables: by table and key, the value.
type Elements = BTreeMap<(TableId, Vec<u8>), Vec<u8>>;

/// The object's tables.
struct Kernel<'a> {
    ebpf: &'a mut Ebpf,
    stores: BTreeMap<TableId, Box<dyn Store>>,
    drops: PerCpuArray<MapData, u64>,
    counted: Vec<u64>,
    /// What the tables hold that the agent writes.
    tables: Elements,
    /// What those hold that packets write.
    memory: Elements,
}

impl<'a> Kernel<'a> {
    fn new(ebpf: &'a mut Ebpf) -> Result<Self> {
        let drops = store::map(ebpf, TableId::Drops)?.try_into()?;
        let (stores, tables, memory) = Default::default();
        let mut kernel = Self { ebpf, stores, drops, counted: Vec::new(), tables, memory };
        kernel.counted = kernel.count()?;
        Ok(kernel)
    }

    fn store(&mut self, table: TableId) -> Result<&mut Box<dyn Store>> {
        Ok(match self.stores.entry(table) {
            Occupied(there) => there.into_mut(),
            Vacant(place) => place.insert(store::take(self.ebpf, table)?),
        })
    }

    fn run(&mut self, step: &Step) -> Result<()> {
        if let Some(tables) = &step.tables {
            let wanted = elements(tables);
            let before = std::mem::take(&mut self.tables);
            self.change(&before, &wanted)?;
            self.tables = wanted;
        }
        for _ in 0..TRIES {
            let now = seconds()?;
            let before: Vec<_> = step.before.iter().map(|entry| entry.moved(step.now, now)).collect();
            let left = std::mem::take(&mut self.memory);
            self.change(&left, &elements(&before))?;
            let outcome = test_run(self.ebpf, step);
            let left = self.read_memory(step)?;
            self.memory = elements(&left);
            let counted = self.count()?;
            let drops = drops(&self.counted, &counted);
            self.counted = counted;
            // The program may have read another second than this one.
            if seconds()? == now {
                let left: Vec<_> = left.iter().map(|entry| entry.moved(now, step.now)).collect();
                return outcome?.compare(step, &drops, &left);
            }
        }
        anyhow::bail!("none of {TRIES} runs began and ended in the same second")
    }

    /// Prints how many nanoseconds a frame takes: the median of so many runs, and the fewest. Each is the first: a packet that was
    /// rewritten is another one, so the kernel's own repetition would measure that.
    fn measure(&mut self, step: &Step, runs: u32) -> Result<()> {
        let mut times = Vec::new();
        for _ in 0..runs {
            let now = seconds()?;
            let moved =
                |entries: &[Entry]| elements(&entries.iter().map(|e| e.moved(step.now, now)).collect::<Vec<_>>());
            self.change(&moved(&step.after), &moved(&step.before))?;
            times.push(test_run(self.ebpf, step)?.duration.as_nanos());
        }
        self.memory = elements(&self.read_memory(step)?);
        times.sort_unstable();
        let (name, fewest, median) = (&step.test, times[0], times[times.len() / 2]);
        println!("fairlead-verifier\tcost\t{name}\t{median}\t{fewest}");
        Ok(())
    }

    /// Makes elements of tables others.
    fn change(&mut self, before: &Elements, wanted: &Elements) -> Result<()> {
        for (table, key) in before.keys().filter(|at| !wanted.contains_key(at)) {
            self.store(*table)?.remove(key).with_context(|| table.to_string())?;
        }
        for (at, value) in wanted.iter().filter(|(at, value)| before.get(at) != Some(value)) {
            self.store(at.0)?.put(&at.1, value).with_context(|| at.0.to_string())?;
        }
        Ok(())
    }

    /// Whether nothing was counted that no frame was to count.
    fn finish(&mut self) -> Result<()> {
        let left = std::mem::take(&mut self.memory);
        self.change(&left, &Elements::new())?;
        let stray = self.store(COUNTERS)?.among(None)?;
        let indices: Vec<_> = stray.iter().map(|(index, _)| hex(index)).collect();
        ensure!(stray.is_empty(), "{COUNTERS} has counts that no frame was to make: {indices:?}");
        Ok(())
    }

    /// What a packet has left, in order.
    fn read_memory(&mut self, step: &Step) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for table in WRITTEN {
            let elements = self.store(table)?.elements()?.into_iter();
            entries.extend(elements.map(|(key, value)| Entry { table, key, value }));
        }
        let counters = step.before.iter().chain(&step.after).filter(|entry| entry.table == COUNTERS);
        let wanted: BTreeSet<u32> =
            counters.map(|entry| Ok(u32::from_ne_bytes(entry.key[..].try_into()?))).collect::<Result<_>>()?;
        let counters = self.store(COUNTERS)?.among(Some(&wanted))?.into_iter();
        entries.extend(counters.map(|(key, value)| Entry { table: COUNTERS, key, value }));
        entries.sort_unstable();
        Ok(entries)
    }

    /// Counts of drops, by reason.
    fn count(&self) -> Result<Vec<u64>> {
        (0..self.drops.len()).map(|index| Ok(self.drops.get(&index, 0)?.iter().sum())).collect()
    }
}

fn elements(entries: &[Entry]) -> Elements {
    entries.iter().map(|entry| ((entry.table, entry.key.clone()), entry.value.clone())).collect()
}

/// The reasons whose counts have moved.
fn drops(before: &[u64], after: &[u64]) -> Vec<u32> {
    (0..).zip(before.iter().zip(after)).filter(|(_, (before, after))| before != after).map(|(index, _)| index).collect()
}

/// The second that programs read (`bpf_ktime_get_coarse_ns`).
fn seconds() -> Result<u32> {
    Ok(u32::try_from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?.tv_sec())?)
}

/// What a program made of a packet.
struct Outcome {
    verdict: u32,
    mark: u32,
    bytes: Vec<u8>,
    duration: Duration,
}

fn test_run(ebpf: &Ebpf, step: &Step) -> Result<Outcome> {
    let program: &SchedClassifier = match ebpf.program(&step.program) {
        Some(Program::SchedClassifier(program)) => program,
        _ => anyhow::bail!("the object has no such program"),
    };
    let mut given = [0; context::SIZE];
    for (offset, value) in [
        (context::MARK, step.mark),
        (context::INGRESS_IFINDEX, step.ingress),
        (context::IFINDEX, step.ifindex),
        (context::GSO_SIZE, step.segment_size),
    ] {
        given[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    let (mut bytes, mut left) = (vec![0; ROOM], [0; context::SIZE]);
    let result = program.test_run(TestRunOptions {
        data_in: Some(&step.sent),
        data_out: Some(&mut bytes),
        ctx_in: Some(&given),
        ctx_out: Some(&mut left),
        ..TestRunOptions::new()
    })?;
    bytes.truncate(result.data_size_out as usize);
    let mark = left[context::MARK..][..4].try_into().map(u32::from_ne_bytes)?;
    Ok(Outcome { verdict: result.return_value, mark, bytes, duration: result.duration })
}

impl Outcome {
    fn compare(&self, step: &Step, drops: &[u32], memory: &[Entry]) -> Result<()> {
        let mut wrong = String::new();
        let mut differ = |what: &str, got: String, expected: String| {
            if got != expected {
                write!(wrong, "{what} is {got} and not {expected}; ").ok();
            }
        };
        differ("the verdict", (self.verdict as i32).to_string(), (step.verdict as i32).to_string());
        differ("the counted drop", format!("{drops:?}"), format!("{:?}", step.counted.as_slice()));
        differ("the mark", format!("{:#x}", self.mark), format!("{:#x}", step.got_mark));
        differ("the packet", hex(&self.bytes), hex(&step.got));
        differ("what is left of it in tables", show(memory, &step.after), show(&step.after, memory));
        ensure!(wrong.is_empty(), "{wrong}it was {} with mark {:#x}", hex(&step.sent), step.mark);
        Ok(())
    }
}

/// The entries that others do not have.
fn show(entries: &[Entry], others: &[Entry]) -> String {
    let others: BTreeSet<_> = others.iter().collect();
    let differing = entries.iter().filter(|entry| !others.contains(entry));
    let text: Vec<_> = differing.map(|e| format!("{} {} = {}", e.table, hex(&e.key), hex(&e.value))).collect();
    format!("[{}]", text.join(", "))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
