//! The stack that each program of the committed object takes, as Linux 6.1 counts it: newer kernels count less, so that a program that
//! is refused there loads everywhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use object::{File, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind};

/// The most bytes of a chain of calls, and the most functions in it (`MAX_BPF_STACK`, `MAX_CALL_FRAMES` in include/linux/bpf_verifier.h).
const MOST: u32 = 512;
const FRAMES: usize = 8;

/// What each function takes is rounded up to this many bytes (`check_max_stack_depth` in kernel/bpf/verifier.c).
const STEP: u32 = 32;

/// An instruction (`struct bpf_insn` in include/uapi/linux/bpf.h).
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u8,
    dst: u8,
    src: u8,
    offset: i16,
    imm: i32,
}

impl Instruction {
    /// `BPF_LDX`, `BPF_ST`, `BPF_STX`, `BPF_ALU64`, and the register of the frame.
    const LDX: u8 = 1;
    const ST: u8 = 2;
    const STX: u8 = 3;
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const CALL: u8 = 0x85;
    const FRAME: u8 = 10;

    fn read(bytes: &[u8]) -> Self {
        Self {
            code: bytes[0],
            dst: bytes[1] & 0xf,
            src: bytes[1] >> 4,
            offset: i16::from_le_bytes([bytes[2], bytes[3]]),
            imm: i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        }
    }

    /// Whether it calls another function of the object, and no helper (`BPF_PSEUDO_CALL`).
    fn calls(self) -> bool {
        self.code == Self::CALL && self.src == 1
    }

    /// The bytes below the frame's end that it reaches, given the one before.
    fn reaches(self, before: Option<Self>) -> u32 {
        let base = match self.code & 7 {
            Self::LDX => self.src,
            Self::ST | Self::STX => self.dst,
            _ => 0,
        };
        let is_of_frame = |one: Self| one.code == Self::MOVE && one.src == Self::FRAME && one.dst == self.dst;
        let below = if base == Self::FRAME {
            i32::from(self.offset)
        } else if self.code == Self::ADD && before.is_some_and(is_of_frame) {
            self.imm
        } else {
            0
        };
        below.min(0).unsigned_abs()
    }
}

/// A function, by its section and where it begins there.
type Place = (usize, u64);

#[derive(Debug, Default)]
struct Function {
    name: String,
    depth: u32,
    calls: BTreeSet<Place>,
}

impl Function {
    fn takes(&self) -> u32 {
        self.depth.max(1).next_multiple_of(STEP)
    }
}

/// The functions of an object, and which are programs.
fn functions(file: &File<'_>) -> (BTreeMap<Place, Function>, Vec<Place>) {
    let mut all = BTreeMap::new();
    let mut programs = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let section = symbol.section_index().unwrap();
        let place = (section.0, symbol.address());
        let name = symbol.name().unwrap().to_owned();
        if file.section_by_index(section).unwrap().name() != Ok(".text") {
            programs.push(place);
        }
        all.insert(place, Function { name, ..Function::default() });
    }
    let places: Vec<Place> = all.keys().copied().collect();
    for section in file.sections().filter(|section| places.iter().any(|place| place.0 == section.index().0)) {
        let relocations: BTreeMap<u64, _> = section.relocations().collect();
        let bytes = section.data().unwrap();
        let mut before = None;
        for (number, bytes) in bytes.chunks_exact(8).enumerate() {
            let at = 8 * number as u64;
            let instruction = Instruction::read(bytes);
            let (_, function) = all.range_mut(..=(section.index().0, at)).next_back().expect("it is in a function");
            function.depth = function.depth.max(instruction.reaches(before));
            if instruction.calls() {
                // Counted from the instruction behind the call; of a section's symbol, from its begin.
                let called = |begin: u64| begin.wrapping_add_signed(8 * (i64::from(instruction.imm) + 1));
                let place = match relocations.get(&at).map(object::Relocation::target) {
                    Some(RelocationTarget::Symbol(index)) => {
                        let symbol = file.symbol_by_index(index).unwrap();
                        (symbol.section_index().unwrap().0, called(symbol.address()))
                    }
                    None => (section.index().0, called(at)),
                    other => panic!("a call is relocated by {other:?}"),
                };
                function.calls.insert(place);
            }
            before = Some(instruction);
        }
    }
    (all, programs)
}

/// The deepest chain of calls from a function, and the longest.
fn chains(all: &BTreeMap<Place, Function>, from: Place, frames: usize) -> (u32, Vec<&Function>, usize) {
    assert!(frames <= 64, "calls go round");
    let own = all.get(&from).unwrap_or_else(|| panic!("a call to {from:?}, where no function begins"));
    let (mut deepest, mut longest) = ((0, Vec::new()), 0);
    for called in &own.calls {
        let (depth, chain, length) = chains(all, *called, frames + 1);
        longest = longest.max(length);
        if depth > deepest.0 {
            deepest = (depth, chain);
        }
    }
    let chain = std::iter::once(own).chain(deepest.1).collect();
    (own.takes() + deepest.0, chain, longest + 1)
}

#[test]
fn no_program_takes_more_stack_than_linux_6_1_gives() {
    let bytes = fs::read(fairlead_tree::path("ebpf/fairlead.bpf.o").unwrap()).unwrap();
    let file = File::parse(&*bytes).unwrap();
    let (all, programs) = functions(&file);
    assert!(programs.len() > 10, "{programs:?}");
    let mut refused = Vec::new();
    for program in programs {
        let (depth, chain, length) = chains(&all, program, 1);
        let names: Vec<_> = chain.iter().map(|function| format!("{} {}", function.name, function.takes())).collect();
        let line = format!("{depth} bytes, {length} functions at most: {}", names.join(", "));
        println!("{line}");
        if depth > MOST || length > FRAMES {
            refused.push(line);
        }
    }
    assert_eq!(refused, [""; 0], "Linux 6.1 takes {MOST} bytes and {FRAMES} functions");
}
