//! The manifests' own NetworkPolicies: every pod against every server, as the model says and as it is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use fairlead_agent::compile::policy::World;
use fairlead_objects::{Pod as PodObject, Protocol};
use serde::Serialize;

use super::complain;
use super::errand::{Errand, Outcome, run_at};
use super::objects::allows;
use super::services::PATIENCE;
use super::stage::Stage;
use crate::pod::Pod;
use crate::probe::ProbeError;

/// How long to wait for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(500);

/// Attempts of one pod at a time: most of them wait for nothing.
const AT_ONCE: usize = 16;

/// Who reaches whom.
#[derive(Debug, Clone, Serialize)]
pub struct Matrix {
    /// How many policies there are.
    pub policies: usize,
    /// The workloads that serve something.
    pub servers: Vec<String>,
    /// The pods, and a cell of each for every server.
    pub rows: Vec<Row>,
    /// How many attempts there were: cells count each address and port.
    pub attempts: usize,
}

/// A pod's row.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Namespace and name.
    pub pod: String,
    /// In the order of the servers.
    pub cells: Vec<Cell>,
}

/// A pod against all addresses and ports of a workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// How many the model allows.
    pub allowed: usize,
    /// How many it denies.
    pub denied: usize,
    /// How many of the allowed were not reached.
    pub unreached: usize,
    /// How many of the denied were.
    pub leaked: usize,
}

/// One attempt.
struct Try {
    server: usize,
    allowed: bool,
    pod: String,
    to: SocketAddr,
    protocol: Protocol,
}

/// Tries everything.
pub(super) fn look(stage: &Stage, problems: &mut Vec<String>) -> Result<Matrix> {
    let objects = &stage.objects;
    let mut workloads: BTreeMap<String, Vec<&PodObject>> = BTreeMap::new();
    for pod in objects.pods.iter().filter(|pod| !pod.host_network && !pod.container_ports.is_empty()) {
        workloads.entry(workload(pod)).or_default().push(pod);
    }
    let world = objects.world();
    let one = |from: &PodObject, pod: &Pod| -> Result<(Row, Vec<String>, usize)> {
        let tries: Vec<Try> =
            workloads.values().enumerate().flat_map(|(index, pods)| tries(&world, from, index, pods)).collect();
        let errands = tries.iter().map(Try::errand).collect();
        let outcomes = run_at(pod, AT_ONCE, errands)?;
        let (mut cells, mut wrong) = (vec![Cell::default(); workloads.len()], Vec::new());
        for (attempt, outcome) in tries.iter().zip(&outcomes) {
            wrong.extend(attempt.judge(&mut cells[attempt.server], outcome).map(|how| {
                format!("policy: {} to {} at {}/{}: {how}", from.key, attempt.pod, attempt.to, attempt.protocol)
            }));
        }
        Ok((Row { pod: from.key.to_string(), cells }, wrong, tries.len()))
    };
    let found: Vec<Result<_>> = thread::scope(|scope| {
        let one = &one;
        let own = objects.pods.iter().filter_map(|object| Some((object, stage.pods.get(&object.key.to_string())?)));
        let threads: Vec<_> = own.map(|(object, pod)| scope.spawn(move || one(object, pod))).collect();
        let join =
            |each: thread::ScopedJoinHandle<'_, _>| each.join().unwrap_or_else(|why| std::panic::resume_unwind(why));
        threads.into_iter().map(join).collect()
    });
    let (mut rows, mut wrong, mut attempts) = (Vec::new(), Vec::new(), 0);
    for each in found {
        let (row, own, count) = each?;
        rows.push(row);
        wrong.extend(own);
        attempts += count;
    }
    complain(problems, "policy", wrong);
    Ok(Matrix { policies: objects.policies.len(), servers: workloads.into_keys().collect(), rows, attempts })
}

/// What a pod is one of: its namespace and the label that manifests of the field name it by.
fn workload(pod: &PodObject) -> String {
    let name = ["app", "name", "k8s-app"].into_iter().find_map(|label| pod.labels.get(label));
    format!("{}/{}", pod.key.namespace, name.unwrap_or(&pod.key.name))
}

/// Every address and port of a workload, but those of the pod itself: nothing can keep it from these.
fn tries(world: &World<'_>, from: &PodObject, server: usize, pods: &[&PodObject]) -> Vec<Try> {
    let mut tries = Vec::new();
    for pod in pods.iter().filter(|pod| pod.key != from.key) {
        for port in pod.container_ports.iter().filter(|port| port.protocol != Protocol::Sctp) {
            for ip in &pod.ips {
                let (to, protocol) = (SocketAddr::new(*ip, port.port), port.protocol);
                let allowed = allows(world, from, pod, to, protocol);
                tries.push(Try { server, allowed, pod: pod.key.to_string(), to, protocol });
            }
        }
    }
    tries
}

impl Try {
    fn errand(&self) -> Errand {
        Errand::reach(self.to, self.protocol, if self.allowed { PATIENCE } else { SILENCE })
    }

    /// Counts the attempt, and says what is wrong with it.
    fn judge(&self, cell: &mut Cell, outcome: &Outcome) -> Option<String> {
        // Who is refused by a server has got through to it.
        let passed = !matches!(outcome, Err(ProbeError::TimedOut | ProbeError::NotPermitted | ProbeError::Unreachable));
        match (self.allowed, outcome) {
            (true, Ok(seen)) => {
                cell.allowed += 1;
                let other = seen.server().filter(|server| *server != self.pod)?;
                cell.unreached += 1;
                Some(format!("{other} answered in its place"))
            }
            (true, Err(error)) => {
                cell.allowed += 1;
                cell.unreached += 1;
                Some(format!("the policies allow it, but: {error}"))
            }
            (false, _) if passed => {
                cell.denied += 1;
                cell.leaked += 1;
                Some("the policies deny it, but it got through".to_owned())
            }
            (false, _) => {
                cell.denied += 1;
                None
            }
        }
    }
}

impl Cell {
    /// The cell as one character.
    pub(super) fn symbol(self) -> char {
        match self {
            Self { leaked: 1.., .. } => '!',
            Self { unreached: 1.., .. } => '✗',
            Self { allowed: 0, denied: 0, .. } => ' ',
            Self { denied: 0, .. } => '●',
            Self { allowed: 0, .. } => '·',
            Self { .. } => '◐',
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_the_model_is_marked() {
        let attempt = |allowed| Try {
            server: 0,
            allowed,
            pod: "a/b".to_owned(),
            to: ([10, 0, 0, 1], 80).into(),
            protocol: Protocol::Tcp,
        };
        for (allowed, error, symbol) in [
            (true, ProbeError::TimedOut, '✗'),
            (true, ProbeError::Refused, '✗'),
            (false, ProbeError::TimedOut, '·'),
            (false, ProbeError::Refused, '!'),
        ] {
            let mut cell = Cell::default();
            let wrong = attempt(allowed).judge(&mut cell, &Err(error));
            assert_eq!((cell.symbol(), wrong.is_some()), (symbol, symbol != '·'));
        }
    }
}
