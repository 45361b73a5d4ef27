//! The benches, as `cargo xtask bench` starts them.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use fairlead_tests::bench;
use serde::Serialize;

#[derive(Parser)]
#[command(about = "Fairlead beside what else does the same, in one run on this machine")]
enum Bench {
    /// New connections a second through the translation of addresses
    Load {
        /// Seconds of load on each path, for each of the two
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// New connections a second; 0: as many as are answered
        #[arg(long, default_value_t = 1_000)]
        rate: u32,
        /// Only rows with this in their name
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Write what was found to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// A connection from outside to a NodePort with its backend elsewhere: XDP beside tcx
    Xdp {
        /// Seconds of load on each row, for each of the two
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Write what was found to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// ADD and DEL of pods, beside the reference plugin bridge
    Cni {
        /// Rounds of pods one at a time and at once, on each side
        #[arg(long, default_value_t = 4)]
        rounds: u32,
        /// The reference plugins
        #[arg(long, value_name = "DIRECTORY")]
        plugins: Option<PathBuf>,
        /// What the table calls the side of Fairlead
        #[arg(long, default_value = "Fairlead")]
        label: String,
        /// Write what was found to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// What a node does for `cni`: the calls that standard input names
    #[command(hide = true)]
    CniCalls,
    /// Answers of fairlead-dns, beside CoreDNS
    Dns {
        /// Seconds of load on each row, for each of the two
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Questions a second; 0: as many as are answered
        #[arg(long, default_value_t = 0)]
        rate: u32,
        /// The fairlead-dns to measure
        #[arg(long, value_name = "FILE")]
        program: PathBuf,
        /// Only rows with this in their name
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Write what was found to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Answers whose names a policy has, beside others
    Names {
        /// How many of each kind
        #[arg(long, default_value_t = 10_000)]
        answers: usize,
        /// Write what was found to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// What a pod does for `names`
    #[command(hide = true)]
    NamesClient {
        /// Where it asks
        server: std::net::SocketAddr,
        /// Pairs of questions that do not count
        warm: usize,
        /// Pairs that do
        answers: usize,
    },
    /// Many questions to fairlead-dns, with upstream servers that misbehave
    SoakDns {
        /// How many questions
        #[arg(long, default_value_t = 10_000_000)]
        questions: u64,
        /// The fairlead-dns to ask
        #[arg(long, value_name = "FILE")]
        program: PathBuf,
    },
}

fn main() -> Result<ExitCode> {
    let (errors, json) = match Bench::parse() {
        Bench::Load { seconds, rate, only, json } => {
            let findings = bench::load::run(seconds, rate, only.as_deref())?;
            (findings.errors(), show(&findings, json)?)
        }
        Bench::Cni { rounds, plugins, label, json } => {
            let options = bench::cni::Options { rounds, alone: 20, at_once: 30, plugins, label };
            (0, show(&bench::cni::run(&options)?, json)?)
        }
        Bench::Xdp { seconds, json } => (0, show(&bench::xdp::run(seconds)?, json)?),
        Bench::CniCalls => {
            bench::cni::call()?;
            (0, None)
        }
        Bench::Dns { seconds, rate, program, only, json } => {
            let findings = bench::dns::run(&bench::dns::Options { seconds, rate, program, only })?;
            (findings.errors(), show(&findings, json)?)
        }
        Bench::Names { answers, json } => (0, show(&bench::names::run(answers)?, json)?),
        Bench::NamesClient { server, warm, answers } => {
            bench::names::ask(server, warm, answers)?;
            (0, None)
        }
        Bench::SoakDns { questions, program } => {
            let soaked = bench::soak::run(questions, &program)?;
            (soaked.faults().len() as u64, show(&soaked, None)?)
        }
    };
    if let Some((file, text)) = json {
        fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what was found, and gives what is to be written where.
fn show(findings: &(impl Display + Serialize), json: Option<PathBuf>) -> Result<Option<(PathBuf, String)>> {
    print!("{findings}");
    json.map(|file| Ok((file, serde_json::to_string_pretty(findings)?))).transpose()
}
