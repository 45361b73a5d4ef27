//! Giving the machine back. Namespaces, mounts and devices end with their processes; cgroups and files are removed.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cgroups;
use crate::place::{FABRIC, Home, Place, Record};

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

/// A mount of a namespace that is just going may hold a directory for a moment.
fn remove_files(home: &Home) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match fs::remove_dir_all(&home.path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("can't remove {}", home.path.display()));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}
