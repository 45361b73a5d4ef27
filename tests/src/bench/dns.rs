//! fairlead-dns beside CoreDNS: the same API server, the same objects, kubeadm's Corefile, the same upstream server, and
//! dnsperf as client.

mod control;
mod perf;
mod servers;
mod table;
pub(crate) mod upstream;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

use self::control::Control;
use self::perf::{Mode, Questions};
use self::servers::Server;
pub use self::table::{Findings, Row, Side};

/// How often the two take turns on each row: A B, B A and so on, so that both meet the same moods of the machine.
const TURNS: u32 = 4;

/// Services of the cluster, of which one in ten is headless.
pub(crate) const SERVICES: usize = 1_000;

/// Namespaces that they are in.
pub(crate) const NAMESPACES: usize = 20;

/// A kind of question over a transport, and what is wanted where something is: CPU of an answer, as a part of what it takes
/// CoreDNS.
struct Wanted {
    questions: Questions,
    mode: Mode,
    aim: Option<f64>,
}

const ROWS: [Wanted; 11] = [
    Wanted { questions: Questions::Service, mode: Mode::Udp, aim: Some(0.1) },
    Wanted { questions: Questions::Headless, mode: Mode::Udp, aim: Some(0.1) },
    Wanted { questions: Questions::Search, mode: Mode::Udp, aim: Some(0.1) },
    Wanted { questions: Questions::Hit, mode: Mode::Udp, aim: Some(0.2) },
    Wanted { questions: Questions::Miss, mode: Mode::Udp, aim: Some(0.5) },
    Wanted { questions: Questions::Service, mode: Mode::Tcp, aim: None },
    Wanted { questions: Questions::Hit, mode: Mode::Tcp, aim: None },
    Wanted { questions: Questions::Miss, mode: Mode::Tcp, aim: None },
    Wanted { questions: Questions::Service, mode: Mode::Dot, aim: None },
    Wanted { questions: Questions::Hit, mode: Mode::Dot, aim: None },
    Wanted { questions: Questions::Miss, mode: Mode::Dot, aim: None },
];

/// What is measured, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seconds of load for each row and side.
    pub seconds: u64,
    /// Questions a second; 0: as many as are answered.
    pub rate: u32,
    /// The fairlead-dns to measure.
    pub program: PathBuf,
    /// Only rows with this in their name.
    pub only: Option<String>,
}

/// Measures every row with both, in a network namespace of its own.
///
/// # Errors
/// A part is missing, or does not start.
pub fn run(options: &Options) -> Result<Findings> {
    ensure!(options.seconds > 0, "no time is given: --seconds 1 or more");
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace takes root")?;
    let before = super::load::load_average();
    let control = Control::start()?;
    upstream::start(upstream::ADDRESS)?;
    let servers = [Server::fairlead(&control, &options.program)?, Server::coredns(&control)?];
    for server in &servers {
        server.wait()?;
    }
    let mut rows = Vec::new();
    let mut turn = 0;
    for Wanted { questions, mode, aim } in &ROWS {
        let name = format!("{}, {}", questions.name(), mode.name());
        if options.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let mut sides = [Side::default(), Side::default()];
        for _ in 0..TURNS {
            let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
            turn += 1;
            let file = questions.write(control.dir(), turn)?;
            for side in order {
                let server = &servers[side];
                let begin = server.cpu()?;
                let during = Duration::from_secs(options.seconds) / TURNS;
                let counted = perf::run(server.address(*mode), *mode, &file, during, options.rate)?;
                sides[side].add(&counted, server.cpu()?.saturating_sub(begin), server.resident()?);
            }
        }
        let [fairlead, coredns] = sides;
        let row = Row { name, aim: *aim, fairlead, coredns };
        eprintln!("{row}");
        rows.push(row);
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let (seconds, rate) = (options.seconds, options.rate);
    Ok(Findings { seconds, rate, load_average: [before, super::load::load_average()], cpus, rows })
}
