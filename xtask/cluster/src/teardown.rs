//! Giving the machine back. Namespaces, mounts and devices end with their processes; cgroups and files are removed.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::cgroups;
use crate::place::{FABRIC, Home, Place, Record};

/// What the directories of clusters that are gone begin with: no cluster's name has a dot.
const GONE: &str = ".gone-";

/// Ends a cluster, whatever there is of it. It goes on after an error and says all of them.
pub(crate) fn down(home: &Home) -> Result<()> {
    let record = home.record();
    let mut errors = Vec::new();
    let places = home.places();
    thread::scope(|scope| {
        let ends: Vec<_> = places.iter().map(|place| scope.spawn(|| end(place))).collect();
        for end in ends {
            errors.extend(end.join().expect("it returns its errors").err());
        }
    });
    match &record {
        Ok(record) => {
            for (_, name) in record.spec.node_names() {
                errors.extend(cgroups::remove(&record.hierarchies, &Home::cgroup(record, &name)).err());
            }
        }
        Err(_) if !home.path.exists() => return record.map(|_| ()),
        // What began to be a cluster and has no record has no cgroups either.
        Err(_) => {}
    }
    if errors.is_empty() {
        errors.extend(remove_files(home).err());
    }
    if let Some(first) = errors.first() {
        let all: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
        bail!("{} of the cluster stays ({first:#}): {}", home.path.display(), all.join("; "));
    }
    Ok(())
}

/// Ends every process of a place.
pub(crate) fn end(place: &Place) -> Result<()> {
    if let Some(init) = place.init() {
        init.kill().with_context(|| format!("{} does not end", place.name()))?;
    }
    for file in [place.ready(), place.path.join("init.json")] {
        if file.exists() {
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// Ends one node and what has no process to end with.
pub(crate) fn end_node(record: &Record, place: &Place) -> Result<()> {
    debug_assert!(place.name() != FABRIC);
    end(place)?;
    cgroups::remove(&record.hierarchies, &Home::cgroup(record, &place.name()))
}

/// The files of pods' images are many: they go out of the way at once, and are removed by a process that nobody waits for.
fn remove_files(home: &Home) -> Result<()> {
    let Some(parent) = home.path.parent() else { bail!("{} is no cluster's directory", home.path.display()) };
    if home.path.exists() {
        let name = home.path.file_name().unwrap_or_default().to_string_lossy();
        let gone = parent.join(format!("{GONE}{name}-{}", std::process::id()));
        fs::rename(&home.path, &gone).with_context(|| format!("can't move {} away", home.path.display()))?;
    }
    // Those of earlier ones too, should their removal have been ended.
    let entries = fs::read_dir(parent)?.filter_map(|entry| Some(entry.ok()?.path()));
    let old = entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(GONE)));
    Command::new("rm")
        .args(["--recursive", "--force", "--one-file-system", "--"])
        .args(old)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("can't start rm")?;
    Ok(())
}
