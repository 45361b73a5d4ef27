//! What upstream's own registry of images serves in a pod of its tests (`fake-registry-server` of agnhost): one image, `pause`,
//! laid out as `test/images/agnhost/fakeregistryserver/prepare_registry.sh` does.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::archive::{self, Image};

const FOLDER: &str = "/var/registry/pause";
/// The tag that tests pull.
const TAG: &str = "testing";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The files of the registry, with the layer of the image.
pub(crate) fn files(layer: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let bytes = fs::read(layer).with_context(|| format!("no layer {}", layer.display()))?;
    let (digest, size) = (archive::sha256(&bytes), bytes.len());
    let image = Image { entrypoint: vec!["/pause".to_owned()], ..Image::default() };
    let config = archive::config(&image, std::slice::from_ref(&digest))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": format!("sha256:{}", archive::sha256(&config)),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": format!("sha256:{digest}"),
            "size": size,
        }],
    }))?;
    let tag = format!("sha256:{}\n", archive::sha256(&manifest)).into_bytes();
    Ok(vec![
        (format!("{FOLDER}/manifests/{TAG}"), tag),
        (place("manifests", &manifest), manifest),
        (place("blobs", &config), config),
        (place("blobs", &bytes), bytes),
    ])
}

fn place(kind: &str, bytes: &[u8]) -> String {
    let digest = archive::sha256(bytes);
    format!("{FOLDER}/{kind}/sha256/{}/{digest}/data", &digest[..2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_leads_to_all_of_its_image() {
        let layer = std::env::temp_dir().join(format!("fairlead-registry-{}", std::process::id()));
        fs::write(&layer, "layer").unwrap();
        let files = files(&layer).unwrap();
        fs::remove_file(&layer).unwrap();
        let file = |kind: &str, digest: &str| {
            let hash = digest.trim().strip_prefix("sha256:").unwrap();
            let path = format!("{FOLDER}/{kind}/sha256/{}/{hash}/data", &hash[..2]);
            &files.iter().find(|(name, _)| *name == path).expect(&path).1
        };
        let tag = String::from_utf8(files[0].1.clone()).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(file("manifests", &tag)).unwrap();
        assert_eq!(file("blobs", manifest["layers"][0]["digest"].as_str().unwrap()), b"layer");
        let config = file("blobs", manifest["config"]["digest"].as_str().unwrap());
        assert_eq!(manifest["config"]["size"], config.len());
    }
}
