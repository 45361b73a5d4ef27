//! An image as an archive that every engine takes: an OCI image layout (image-spec 1.1, `image-layout.md`), which
//! containerd, CRI-O, podman and skopeo read, with the `manifest.json` beside it that `docker load` looks for.

use std::{fmt::Write as _, io::Write as _};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::archive::Tree;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What an image says about itself besides its files.
pub(super) struct About<'a> {
    /// As in `localhost/fairlead:0.1.0`.
    pub(super) name: &'a str,
    /// In Go's words: `amd64`, `arm64`.
    pub(super) architecture: &'a str,
    /// What runs where a pod names no command.
    pub(super) entrypoint: &'a str,
    /// `org.opencontainers.image.…`, without this prefix.
    pub(super) labels: &'a [(&'a str, &'a str)],
}

/// An image of one layer, as an archive.
pub(super) fn image(root: &Tree, about: &About<'_>) -> Result<Vec<u8>> {
    let files = root.tar()?;
    let mut blobs = Blobs::default();
    let layer = blobs.add(LAYER, gzip(&files)?);
    let config = blobs.add(CONFIG, config(about, &digest(&files)).to_string().into_bytes());
    // docker's own format names the same two blobs.
    let docker = json!([{
        "Config": path(&config), "RepoTags": [about.name], "Layers": [path(&layer)],
    }]);
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let mut manifest = blobs.add(MANIFEST, manifest.to_string().into_bytes());
    manifest["platform"] = json!({"os": "linux", "architecture": about.architecture});
    // The first is what containerd and podman call the image after import, the second the specification's own.
    manifest["annotations"] =
        json!({"io.containerd.image.name": about.name, "org.opencontainers.image.ref.name": about.name});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});

    let mut layout = blobs.0;
    layout.file("oci-layout", 0o644, json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes());
    layout.file("index.json", 0o644, index.to_string().into_bytes());
    layout.file("manifest.json", 0o644, docker.to_string().into_bytes());
    layout.tar()
}

fn config(about: &About<'_>, diff: &str) -> Value {
    let labels: serde_json::Map<String, Value> = about
        .labels
        .iter()
        .map(|(name, value)| (format!("org.opencontainers.image.{name}"), Value::from(*value)))
        .collect();
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": about.architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin"], "Entrypoint": [about.entrypoint], "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask image"}],
    })
}

/// Content by its own digest.
#[derive(Default)]
struct Blobs(Tree);

impl Blobs {
    /// Adds a blob and returns its descriptor.
    fn add(&mut self, media_type: &str, data: Vec<u8>) -> Value {
        let descriptor = json!({"mediaType": media_type, "digest": digest(&data), "size": data.len()});
        self.0.file(&path(&descriptor), 0o644, data);
        descriptor
    }
}

/// Where the blob of a descriptor is.
fn path(descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    format!("blobs/{}", digest.replace(':', "/"))
}

fn digest(data: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(data) {
        let _ = write!(text, "{byte:02x}"); // writing to a string never fails
    }
    text
}

/// The encoder writes neither a time nor a name into the header.
fn gzip(data: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).and_then(|()| encoder.finish()).context("can't compress a layer")
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        io::{self, Read as _},
    };

    use flate2::read::GzDecoder;

    use super::*;

    fn sample() -> Vec<u8> {
        let mut root = Tree::default();
        root.file("usr/bin/fairlead", 0o755, b"program".to_vec());
        let about = About {
            name: "localhost/fairlead:1.2.3",
            architecture: "amd64",
            entrypoint: "/usr/bin/fairlead",
            labels: &[("version", "1.2.3")],
        };
        image(&root, &about).unwrap()
    }

    fn unpack(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            (entry.path().unwrap().display().to_string(), data)
        });
        entries.filter(|(path, _)| !path.ends_with('/')).collect()
    }

    fn json(files: &BTreeMap<String, Vec<u8>>, path: &str) -> Value {
        serde_json::from_slice(&files[path]).unwrap()
    }

    #[test]
    fn every_descriptor_leads_to_a_blob_of_its_digest_and_size() {
        let files = unpack(&sample());
        let index = json(&files, "index.json");
        let manifest = json(&files, &path(&index["manifests"][0]));
        let descriptors = [&index["manifests"][0], &manifest["config"], &manifest["layers"][0]];
        for descriptor in descriptors {
            let blob = &files[&path(descriptor)];
            assert_eq!(descriptor["digest"], digest(blob));
            assert_eq!(descriptor["size"], blob.len());
        }
        assert_eq!(files.len(), descriptors.len() + 3, "nothing but these, the layout and two indexes");
        assert_eq!(json(&files, "oci-layout")["imageLayoutVersion"], "1.0.0");
    }

    #[test]
    fn the_layer_unpacks_to_the_root_that_its_configuration_names() {
        let files = unpack(&sample());
        let manifest = json(&files, &path(&json(&files, "index.json")["manifests"][0]));
        let mut layer = Vec::new();
        let blob = files[&path(&manifest["layers"][0])].as_slice();
        io::copy(&mut GzDecoder::new(blob), &mut layer).unwrap();
        let config = json(&files, &path(&manifest["config"]));
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest(&layer)]));
        assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/fairlead"]));
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.version"], "1.2.3");
        assert_eq!(unpack(&layer)["usr/bin/fairlead"], b"program");
    }

    #[test]
    fn the_name_is_where_containerd_podman_and_docker_look() {
        let files = unpack(&sample());
        let annotations = &json(&files, "index.json")["manifests"][0]["annotations"];
        assert_eq!(annotations["io.containerd.image.name"], "localhost/fairlead:1.2.3");
        assert_eq!(annotations["org.opencontainers.image.ref.name"], "localhost/fairlead:1.2.3");
        let docker = json(&files, "manifest.json");
        assert_eq!(docker[0]["RepoTags"], json!(["localhost/fairlead:1.2.3"]));
        assert!(files.contains_key(docker[0]["Config"].as_str().unwrap()));
        assert!(files.contains_key(docker[0]["Layers"][0].as_str().unwrap()));
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        assert_eq!(sample(), sample());
    }
}
