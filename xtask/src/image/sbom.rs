//! The image's list of parts, in CycloneDX 1.6: every crate that is linked into its programs, with its source, checksum and
//! licence. One commit gives one list: there is no time and no random number in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{arch::Arch, paths};

/// Writes the list of what these packages are made of, on any of these architectures.
pub(super) fn write(packages: &[&str], archs: &[Arch], path: &Path) -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(archs.iter().flat_map(|arch| ["--filter-platform", arch.triple()]))
        .current_dir(paths::workspace())
        .output()
        .context("can't run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata gives no JSON")?;
    let lock = fs::read_to_string(paths::workspace().join("Cargo.lock")).context("can't read Cargo.lock")?;
    let text = serde_json::to_string_pretty(&list(&metadata, &lock, packages)?)? + "\n";
    fs::write(path, text).with_context(|| format!("can't write {}", path.display()))?;
    println!("the list of parts is in {}", path.display());
    Ok(())
}

/// The list, from what cargo says.
fn list(metadata: &Value, lock: &str, packages: &[&str]) -> Result<Value> {
    let all: BTreeMap<&str, &Value> =
        array(&metadata["packages"]).map(|package| (text(&package["id"]), package)).collect();
    let needs: BTreeMap<&str, BTreeSet<&str>> = array(&metadata["resolve"]["nodes"])
        .map(|node| {
            // Not what tests and build scripts alone need.
            let linked = array(&node["deps"]).filter(|dep| array(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null()));
            (text(&node["id"]), linked.map(|dep| text(&dep["pkg"])).collect())
        })
        .collect();
    let roots = all.iter().filter(|(_, package)| packages.contains(&text(&package["name"]))).map(|(id, _)| *id);
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut next: Vec<&str> = roots.collect();
    if next.len() != packages.len() {
        bail!("cargo does not know all of {}", packages.join(", "));
    }
    while let Some(id) = next.pop() {
        if reached.insert(id) {
            next.extend(needs.get(id).into_iter().flatten());
        }
    }
    let checksums = checksums(lock);
    let purl = |package: &Value| format!("pkg:cargo/{}@{}", text(&package["name"]), text(&package["version"]));
    let components = reached.iter().map(|id| {
        let package = all[id];
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        let mut component = json!({
            "type": "library", "bom-ref": purl(package), "name": name, "version": version, "purl": purl(package),
        });
        if let Some(license) = package["license"].as_str() {
            // What was written with a slash before SPDX had OR.
            component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
        }
        if let Some(checksum) = checksums.get(&(name.to_owned(), version.to_owned())) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
        }
        component
    });
    let mut components: Vec<_> = components.collect();
    components.sort_by(|a, b| text(&a["bom-ref"]).cmp(text(&b["bom-ref"])));
    let dependencies = reached.iter().map(|id| {
        let on: BTreeSet<_> = needs.get(id).into_iter().flatten().map(|needed| purl(all[needed])).collect();
        (purl(all[id]), on)
    });
    let dependencies: BTreeMap<_, _> = dependencies.collect();
    let dependencies: Vec<_> = dependencies.into_iter().map(|(of, on)| json!({"ref": of, "dependsOn": on})).collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {
            "type": "container", "bom-ref": "fairlead", "name": "fairlead", "version": env!("CARGO_PKG_VERSION"),
            "licenses": [{"expression": env!("CARGO_PKG_LICENSE")}],
        }},
        "components": components,
        "dependencies": dependencies,
    }))
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Checksums of crates by name and version, from Cargo.lock.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |entry: &str, key: &str| {
        let line = entry.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    let entries = lock.split("[[package]]");
    entries
        .filter_map(|entry| Some(((value(entry, "name")?, value(entry, "version")?), value(entry, "checksum")?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_what_is_linked_and_nothing_else() {
        let package = |name: &str, license: &str| json!({"id": format!("{name} 1"), "name": name, "version": "1.0.0", "license": license});
        let dep = |name: &str, kind: Value| json!({"pkg": format!("{name} 1"), "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("ours", "Apache-2.0"), package("linked", "MIT/Apache-2.0"), package("deep", "MIT"),
                         package("tests", "MIT"), package("build", "MIT"), package("other", "MIT")],
            "resolve": {"nodes": [
                {"id": "ours 1", "deps": [dep("linked", Value::Null), dep("tests", json!("dev")), dep("build", json!("build"))]},
                {"id": "linked 1", "deps": [dep("deep", Value::Null)]},
                {"id": "deep 1", "deps": []},
                {"id": "other 1", "deps": []},
            ]},
        });
        let lock = "[[package]]\nname = \"deep\"\nversion = \"1.0.0\"\nchecksum = \"abcd\"\n\n[[package]]\nname = \"ours\"\n\
                    version = \"1.0.0\"\n";
        let list = list(&metadata, lock, &["ours"]).unwrap();
        let names: Vec<_> = array(&list["components"]).map(|component| text(&component["name"])).collect();
        assert_eq!(names, ["deep", "linked", "ours"]);
        assert_eq!(list["components"][0]["hashes"][0]["content"], "abcd");
        assert_eq!(list["components"][1]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(list["components"][2]["purl"], "pkg:cargo/ours@1.0.0");
        let ours = array(&list["dependencies"]).find(|entry| entry["ref"] == "pkg:cargo/ours@1.0.0").unwrap();
        assert_eq!(ours["dependsOn"], json!(["pkg:cargo/linked@1.0.0"]));
        assert!(super::list(&metadata, lock, &["ours", "nobody"]).is_err());
    }

    #[test]
    fn the_programs_of_the_image_have_a_list() {
        let path = std::env::temp_dir().join(format!("fairlead-sbom-{}", std::process::id()));
        write(&["fairlead-agent", "fairlead-cni", "fairlead-dns"], &[Arch::Amd64, Arch::Arm64], &path).unwrap();
        let list: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        let names: BTreeSet<_> = array(&list["components"]).map(|component| text(&component["name"])).collect();
        assert!(
            names.contains("aya") && names.contains("hickory-proto") && names.contains("fairlead-cni"),
            "{names:?}"
        );
        assert!(!names.contains("proptest"), "tests alone need it");
        // What is not ours has its checksum.
        let without = array(&list["components"]).filter(|component| component["hashes"].is_null());
        assert!(without.into_iter().all(|component| text(&component["name"]).starts_with("fairlead-")));
    }
}
