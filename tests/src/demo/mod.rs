//! The demo: a small cluster of real manifests on this machine, and what Fairlead does for it.
//!
//! It reads in this order: [`stage`] brings the cluster up, [`services`], [`policy`], [`srv`], [`attach`] and
//! [`restart`] each look at one thing and give a part of the [`report`], which is shown as tables or as JSON. What is
//! expected comes from the [`objects`] alone; what is so is seen by [`errand`]s in the pods.

mod ask;
mod attach;
mod errand;
mod objects;
mod policy;
mod report;
mod restart;
mod services;
mod srv;
mod stage;
mod table;

use std::time::Instant;

use anyhow::Result;

pub use errand::{COMMAND as ERRANDS, run_here as run_errands};
pub use report::Report;

use stage::Stage;

/// Runs the demo.
///
/// # Errors
/// When it can't go on at all. What is not as it should be is in the report.
pub fn run(keep: bool) -> Result<Report> {
    let started = Instant::now();
    let mut stage = Stage::raise()?;
    let mut problems = Vec::new();
    let in_force = stage.settle(&mut problems)?;
    let add = attach::look(&stage);
    say("visiting every Service by its name from every pod that its policies let through");
    let services = services::look(&stage, &mut problems)?;
    say("trying every pod against every server");
    let policy = policy::look(&stage, &mut problems)?;
    let srv = srv::look(&stage, &mut problems)?;
    let restart = restart::look(&stage, &mut problems)?;
    let kept = keep.then(|| stage.keep()).transpose()?;
    Ok(Report {
        nodes: stage.nodes(),
        pods: stage.pods.len(),
        in_force,
        services,
        policy,
        srv,
        add,
        restart,
        took: started.elapsed(),
        kept,
        problems,
    })
}

/// Says what happens now: on standard error, since standard output may be read by a program.
fn say(text: &str) {
    eprintln!("=> {text}");
}

/// Adds what is wrong to the list, the first few in full.
fn complain(problems: &mut Vec<String>, about: &str, wrong: Vec<String>) {
    const SHOWN: usize = 8;
    let left = wrong.len().saturating_sub(SHOWN);
    problems.extend(wrong.into_iter().take(SHOWN));
    if left > 0 {
        problems.push(format!("{about}: {left} more like these"));
    }
}
