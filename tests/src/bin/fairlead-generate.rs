//! Writes the objects that a control plane would have made of the tests' manifests: `tests/data/cluster`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use fairlead_tests::generate::{Cluster, Topology};

/// Writes the objects of a test cluster as YAML files.
#[derive(Debug, Parser)]
struct Args {
    /// Where to write; without, over the committed files.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The zone of each node.
    #[arg(long, value_delimiter = ',', default_values_t = ["zone-a", "zone-a", "zone-b"].map(str::to_owned))]
    zones: Vec<String>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let out = args.out.map_or_else(|| fairlead_tree::path("tests/data/cluster"), Ok)?;
    let cluster = Cluster::of_test_data(&Topology::of_zones(args.zones))?;
    fs::create_dir_all(&out).with_context(|| format!("can't create {}", out.display()))?;
    for (name, text) in cluster.files()? {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
