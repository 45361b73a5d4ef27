//! The demo, as `cargo xtask demo` starts it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use fairlead_tests::demo;

#[derive(Parser)]
#[command(about = "Runs a small cluster of real manifests on this machine, and shows what Fairlead does for it")]
struct Arguments {
    /// Leave the cluster up and say how to look around
    #[arg(long)]
    keep: bool,
    /// How to print what was found
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Tables, for a person
    Text,
    /// JSON, for programs
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Runs errands in a pod; started by the demo itself
    #[command(name = demo::ERRANDS, hide = true)]
    Errands,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.command.is_some() {
        demo::run_errands()?;
        return Ok(ExitCode::SUCCESS);
    }
    // The lab says by a panic what keeps it from working; where in the source is of no use here.
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        eprintln!("The demo can't go on: {}", text.unwrap_or("a part of it broke"));
    }));
    let report = demo::run(arguments.keep)?;
    match arguments.output {
        Output::Text => print!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
