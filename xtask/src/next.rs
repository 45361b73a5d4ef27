//! An agent of a release that does not exist: this source, with a table of flows that has other fields, bits and sizes. Tests go
//! from this release to that one and back.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{paths, run};

/// Builds an agent whose tables differ from this one's, in `target/next`
#[derive(Debug, clap::Args)]
pub(crate) struct Next {}

/// A text in a file, which is there once, and what is there instead.
type Edit = (&'static str, &'static str, &'static str);

const ENTRY: &str = "ebpf/datapath/src/tables/entry.rs";
const KEY: &str = "ebpf/datapath/src/tables/key.rs";
const CATALOG: &str = "ebpf/datapath/src/catalog/mod.rs";
const LAYOUT: &str = "ebpf/datapath/src/catalog/layout.rs";
const LAYOUTS: &str = "ebpf/datapath/src/catalog/layouts.txt";

/// A field more, two that change places, two bits that do, a table that is larger and one that is smaller.
const EDITS: [Edit; 13] = [
    (ENTRY, "    pub acked: Owned,\n", "    pub acked: Owned,\n    /// Nothing yet.\n    pub spare: Owned,\n"),
    (ENTRY, "    pub acked: Long,\n", "    pub acked: Long,\n    /// [`Flow::spare`].\n    pub spare: Long,\n"),
    (ENTRY, "acked: Owned::new(0),\n", "acked: Owned::new(0),\n            spare: Owned::new(0),\n"),
    (
        ENTRY,
        "            acked,\n            claim,\n            last_stamp,\n            last_seq,\n            aside,\n            errors,\n            seen: _,\n",
        "            acked,\n            spare,\n            claim,\n            last_stamp,\n            last_seq,\n            aside,\n            errors,\n            seen: _,\n",
    ),
    (
        ENTRY,
        "            acked,\n            claim,\n            last_stamp,\n            last_seq,\n            aside,\n            errors,\n            seen,\n        } = self;",
        "            acked,\n            spare,\n            claim,\n            last_stamp,\n            last_seq,\n            aside,\n            errors,\n            seen,\n        } = self;",
    ),
    (
        ENTRY,
        "            acked,\n            claim,\n            last_stamp,\n            last_seq,\n            aside,\n            errors,\n            seen,\n        ]\n",
        "            acked,\n            spare,\n            claim,\n            last_stamp,\n            last_seq,\n            aside,\n            errors,\n            seen,\n        ]\n",
    ),
    (ENTRY, "generation, acked, claim, last_stamp", "generation, acked, spare, claim, last_stamp"),
    (
        ENTRY,
        "        into.claim = Owned",
        "        into.spare = Owned { value: 0, owner: key };\n        into.claim = Owned",
    ),
    (ENTRY, "const WORDS: usize = 20;", "const WORDS: usize = 21;"),
    (
        ENTRY,
        "    pub backend: u32,\n    /// The service port that it belongs to.\n    pub service: u32,\n",
        "    pub service: u32,\n    /// The backend.\n    pub backend: u32,\n",
    ),
    (KEY, "OUTSIDE: u32 = 256", "OUTSIDE: u32 = 512"),
    (KEY, "PORT: u32 = 512", "PORT: u32 = 256"),
    (LAYOUT, "    claim: \"1: a CPU takes", "    spare: \"nothing yet\",\n    claim: \"1: a CPU takes"),
];

impl Next {
    pub(crate) fn run(self) -> Result<()> {
        let program = build()?;
        println!("{}", program.display());
        Ok(())
    }
}

/// Builds it: its path.
pub(crate) fn build() -> Result<PathBuf> {
    let target = paths::target().join("next");
    let tree = target.join("tree");
    copy(&tree)?;
    // It fails, and says what is missing.
    let mut test = cargo(&tree, &target);
    test.args(["test", "--locked", "-p", "fairlead-datapath", "no_layout_changes"]).env("RUST_BACKTRACE", "0");
    let ended = test.output().context("can't start cargo")?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let added = said.split_once("layouts.txt:\n").and_then(|(_, text)| text.split_once("\nnote:"));
    let (added, _) = added.with_context(|| {
        format!("the test of layouts names no new one:\n{said}{}", String::from_utf8_lossy(&ended.stderr))
    })?;
    let layouts = tree.join(LAYOUTS);
    let text = fs::read_to_string(&layouts).context("can't read the layouts")?;
    fs::write(&layouts, format!("{text}\n{}\n", added.trim())).context("can't write the layouts")?;
    run::run(cargo(&tree, &target).args(["xtask", "ebpf"]))?;
    run::run(cargo(&tree, &target).args(["build", "--locked", "-p", "fairlead-agent", "--bin", "fairlead"]))?;
    Ok(target.join("debug/fairlead"))
}

fn cargo(tree: &Path, target: &Path) -> Command {
    let mut command = run::cargo();
    command.current_dir(tree).env("CARGO_TARGET_DIR", target);
    command
}

/// Copies the work tree, with what differs. What has not changed since the last time is left alone, and not built again.
fn copy(tree: &Path) -> Result<()> {
    let listed = run::output(Command::new("git").current_dir(paths::workspace()).args([
        "ls-files",
        "-z",
        "-co",
        "--exclude-standard",
    ]))?;
    for name in listed.split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (paths::workspace().join(name), tree.join(name));
        let Ok(bytes) = fs::read(&from) else { continue };
        let bytes = changed(name, bytes)?;
        if fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        let folder = to.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        fs::write(&to, bytes).with_context(|| format!("can't write {}", to.display()))?;
    }
    Ok(())
}

/// A file of that release.
fn changed(name: &str, bytes: Vec<u8>) -> Result<Vec<u8>> {
    if name != CATALOG && !EDITS.iter().any(|(file, ..)| *file == name) {
        return Ok(bytes);
    }
    let mut text = String::from_utf8(bytes).with_context(|| format!("{name} is no text"))?;
    for (_, from, to) in EDITS.iter().filter(|(file, ..)| *file == name) {
        ensure!(text.matches(from).count() == 1, "{name} has this not once: update xtask/src/next.rs\n{from}");
        text = text.replace(from, to);
    }
    if name == CATALOG {
        text = versions(&text)?;
    }
    Ok(text.into_bytes())
}

/// The catalog with the next versions of the tables of flows, one of twice the size and one of a quarter.
fn versions(text: &str) -> Result<String> {
    let mut changed = 0;
    let lines: Vec<_> = text
        .lines()
        .map(|line| {
            let size = match () {
                () if line.contains("\"CT_EST\"") => "MAX_FLOW_ENTRIES * 2",
                () if line.contains("\"CT_ANY\"") => "MAX_FLOW_ENTRIES / 4",
                () => return Ok(line.to_owned()),
            };
            changed += 1;
            let (head, version) = line.split_once("Some(").context("a table of flows has a version")?;
            let version: u32 = version.trim_end_matches(");").parse().context("its version is a number")?;
            Ok(format!("{}Some({});", head.replace("MAX_FLOW_ENTRIES", size), version + 1))
        })
        .collect::<Result<_>>()?;
    if changed != 2 {
        bail!("{CATALOG} has {changed} lines of tables of flows, and not 2: update xtask/src/next.rs");
    }
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_release_can_be_made_from_this_source() {
        for name in [ENTRY, KEY, CATALOG, LAYOUT] {
            let bytes = fs::read(paths::workspace().join(name)).unwrap();
            assert_ne!(changed(name, bytes.clone()).unwrap(), bytes, "{name}");
        }
    }
}
