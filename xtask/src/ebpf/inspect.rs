//! What must not be in the object: traps that otherwise show on some kernel, as a refused program or a slow one.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use object::{File, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind, SymbolKind};

/// Copies a byte at a time, which aya-ebpf brings for what LLVM does not inline.
const BYTE_LOOPS: [&str; 4] = ["memcpy", "memmove", "memset", "memcmp"];

/// `BPF_JMP | BPF_CALL`; with [`PSEUDO_CALL`] as its source register it calls a function of this object.
const CALL: u8 = 0x85;
const PSEUDO_CALL: u8 = 1;

/// A function of the object, or the call of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    caller: String,
    callee: String,
}

/// Fails, with the names of the culprits, when the object has one of the traps.
pub(super) fn verify(object: &[u8]) -> Result<()> {
    let file = File::parse(object).context("the object is not ELF")?;
    let symbols: Vec<(&str, bool)> =
        file.symbols().filter_map(|symbol| Some((symbol.name().ok()?, symbol.is_undefined()))).collect();
    let mut problems = symbol_problems(&symbols);
    problems.extend(call_problems(&calls(&file)?));
    if !problems.is_empty() {
        bail!("the kernel would refuse this object, or run it slowly:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

/// Names that must not be there, from (name, is it undefined).
fn symbol_problems(symbols: &[(&str, bool)]) -> Vec<String> {
    symbols
        .iter()
        .filter_map(|&(name, undefined)| match () {
            () if name.contains("panic") => Some(format!(
                "{name}: some code can panic, and the verifier refuses that. Look for indexing with [], unwrap, and / or \
                 % by what may be 0"
            )),
            () if undefined && !name.is_empty() => Some(format!("{name}: nothing in the object defines it")),
            () => None,
        })
        .collect()
}

/// Calls of byte loops from real code (they may call each other).
fn call_problems(calls: &BTreeSet<Call>) -> Vec<String> {
    let byte_loop = |name: &String| BYTE_LOOPS.contains(&name.as_str());
    calls
        .iter()
        .filter(|call| byte_loop(&call.callee) && !byte_loop(&call.caller))
        .map(|Call { caller, callee }| {
            format!("{caller} calls {callee}, which goes byte by byte: make the length constant, the value smaller, or its fields u32 or u64")
        })
        .collect()
}

/// Who calls whom inside the object.
fn calls(file: &File<'_>) -> Result<BTreeSet<Call>> {
    let mut functions: BTreeMap<(usize, u64), String> = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        if let Some(section) = symbol.section_index() {
            functions.insert((section.0, symbol.address()), symbol.name()?.to_owned());
        }
    }
    let mut calls = BTreeSet::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let here = section.index().0;
        let relocations: BTreeMap<u64, RelocationTarget> =
            section.relocations().map(|(offset, relocation)| (offset, relocation.target())).collect();
        for (offset, instruction) in (0_u64..).step_by(8).zip(section.data()?.chunks_exact(8)) {
            let [CALL, registers, _, _, immediate @ ..] = instruction else { continue };
            if registers >> 4 != PSEUDO_CALL {
                continue;
            }
            let immediate = i64::from(i32::from_le_bytes(immediate.try_into()?));
            // A call inside a section counts instructions from the next one; one into another section from its target symbol.
            let (section, base) = match relocations.get(&offset) {
                Some(RelocationTarget::Symbol(index)) => {
                    let symbol = file.symbol_by_index(*index)?;
                    (symbol.section_index().map_or(here, |section| section.0), symbol.address().cast_signed())
                }
                _ => (here, offset.cast_signed()),
            };
            let target = (base + (immediate + 1) * 8).cast_unsigned();
            let Some(callee) = functions.get(&(section, target)) else { continue };
            let caller = functions.range(..=(here, offset)).next_back();
            let caller = caller.filter(|((section, _), _)| *section == here).map_or("?", |(_, name)| name);
            calls.insert(Call { caller: caller.to_owned(), callee: callee.clone() });
        }
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls_of(pairs: &[(&str, &str)]) -> BTreeSet<Call> {
        pairs
            .iter()
            .map(|(caller, callee)| Call { caller: (*caller).to_owned(), callee: (*callee).to_owned() })
            .collect()
    }

    #[test]
    fn a_panic_is_found_by_name() {
        let problems = symbol_problems(&[("pod_ingress", false), ("_ZN4core9panicking5panic17h0E", false)]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("panicking"));
    }

    #[test]
    fn an_undefined_name_is_a_problem_and_the_null_symbol_is_not() {
        assert_eq!(symbol_problems(&[("", true), ("__ashlti3", true)]).len(), 1);
    }

    #[test]
    fn byte_loops_may_call_each_other_only() {
        assert!(call_problems(&calls_of(&[("memmove", "memcpy"), ("walk", "reject")])).is_empty());
        let problems = call_problems(&calls_of(&[("walk", "memset")]));
        assert!(problems[0].starts_with("walk calls memset"), "{problems:?}");
    }

    #[test]
    fn the_committed_object_has_none_of_the_traps() {
        verify(&std::fs::read(crate::paths::object()).unwrap()).unwrap();
    }

    #[test]
    fn what_is_not_elf_is_refused() {
        assert!(verify(b"not an object").is_err());
    }
}
