//! An image as an archive that every engine takes: an OCI image layout (image-spec 1.1, `image-layout.md`), which
//! containerd, CRI-O, podman and skopeo read, with the `manifest.json` beside it that `docker load` looks for.

use std::{fmt::Write as _, io::Write as _};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::archive::Tree;
use crate::arch::Arch;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What an image says about itself besides its files.
pub(super) struct About<'a> {
    /// As in `localhost/fairlead:0.1.0`.
    pub(super) name: &'a str,
    /// What runs where a pod names no command.
    pub(super) entrypoint: &'a str,
    /// `org.opencontainers.image.…`, without this prefix.
    pub(super) labels: &'a [(&'a str, &'a str)],
}

/// An archive of the image of each of these roots, which has one layer. The archive's own index names the image; that of several
/// architectures is an index again, of one manifest each.
pub(super) fn archive(roots: &[(Arch, Tree)], about: &About<'_>) -> Result<Vec<u8>> {
    let mut blobs = Blobs::default();
    let images =
        roots.iter().map(|(arch, root)| Image::add(&mut blobs, *arch, root, about)).collect::<Result<Vec<_>>>()?;
    let (mut named, docker) = match &images[..] {
        [one] => (one.manifest.clone(), Some(one.docker.clone())),
        // docker's own format knows no architectures: better none there than the wrong one.
        several => {
            let manifests: Vec<&Value> = several.iter().map(|image| &image.manifest).collect();
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
            (blobs.add(INDEX, index.to_string().into_bytes()), None)
        }
    };
    // The first is what containerd and podman call the image after import, the second the specification's own.
    named["annotations"] =
        json!({"io.containerd.image.name": about.name, "org.opencontainers.image.ref.name": about.name});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]});

    let mut layout = blobs.0;
    layout.file("oci-layout", 0o644, json!({"imageLayoutVersion": "1.0.0"}).to_string().into_bytes());
    layout.file("index.json", 0o644, index.to_string().into_bytes());
    if let Some(docker) = docker {
        layout.file("manifest.json", 0o644, docker.to_string().into_bytes());
    }
    layout.tar()
}

/// An image of one architecture.
struct Image {
    /// The descriptor of its manifest.
    manifest: Value,
    /// What docker's own format says of the same two blobs.
    docker: Value,
}

impl Image {
    /// Adds its blobs.
    fn add(blobs: &mut Blobs, arch: Arch, root: &Tree, about: &About<'_>) -> Result<Self> {
        let files = root.tar()?;
        let layer = blobs.add(LAYER, gzip(&files)?);
        let config = blobs.add(CONFIG, config(about, arch, &digest(&files)).to_string().into_bytes());
        let docker = json!([{
            "Config": path(&config), "RepoTags": [about.name], "Layers": [path(&layer)],
        }]);
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
        let mut manifest = blobs.add(MANIFEST, manifest.to_string().into_bytes());
        manifest["platform"] = json!({"os": "linux", "architecture": arch.name()});
        Ok(Self { manifest, docker })
    }
}

fn config(about: &About<'_>, arch: Arch, diff: &str) -> Value {
    let labels: serde_json::Map<String, Value> = about
        .labels
        .iter()
        .map(|(name, value)| (format!("org.opencontainers.image.{name}"), Value::from(*value)))
        .collect();
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": arch.name(),
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
        sample_of(&[Arch::Amd64])
    }

    fn sample_of(archs: &[Arch]) -> Vec<u8> {
        let roots: Vec<(Arch, Tree)> = archs
            .iter()
            .map(|arch| {
                let mut root = Tree::default();
                root.file("usr/bin/fairlead", 0o755, format!("program of {}", arch.name()).into_bytes());
                (*arch, root)
            })
            .collect();
        let about = About {
            name: "localhost/fairlead:1.2.3",
            entrypoint: "/usr/bin/fairlead",
            labels: &[("version", "1.2.3")],
        };
        archive(&roots, &about).unwrap()
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
        assert_eq!(unpack(&layer)["usr/bin/fairlead"], b"program of amd64");
    }

    #[test]
    fn an_index_has_the_image_of_each_architecture() {
        let files = unpack(&sample_of(&[Arch::Amd64, Arch::Arm64]));
        let outer = json(&files, "index.json");
        assert_eq!(outer["manifests"].as_array().unwrap().len(), 1);
        let named = &outer["manifests"][0];
        assert_eq!(named["mediaType"], INDEX);
        assert_eq!(named["annotations"]["io.containerd.image.name"], "localhost/fairlead:1.2.3");
        let index = json(&files, &path(named));
        let manifests = index["manifests"].as_array().unwrap();
        assert_eq!(manifests.len(), 2);
        for (manifest, arch) in manifests.iter().zip(["amd64", "arm64"]) {
            assert_eq!(manifest["platform"], json!({"os": "linux", "architecture": arch}));
            let image = json(&files, &path(manifest));
            assert_eq!(json(&files, &path(&image["config"]))["architecture"], arch);
            let mut layer = Vec::new();
            io::copy(&mut GzDecoder::new(files[&path(&image["layers"][0])].as_slice()), &mut layer).unwrap();
            assert_eq!(unpack(&layer)["usr/bin/fairlead"], format!("program of {arch}").into_bytes());
        }
        assert!(!files.contains_key("manifest.json"), "it has room for one");
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
